"""Tensors in, tensors out: pooling that knows nothing of images or networks."""

from sppnet.ops.pyramid import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool

__all__ = ["region_pyramid_pool", "region_pyramid_scores", "spatial_pyramid_pool"]

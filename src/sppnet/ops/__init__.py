"""Operations on tensors: pyramid pooling, box arithmetic, products for linear models."""

from sppnet.ops.pyramid import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool

__all__ = ["region_pyramid_pool", "region_pyramid_scores", "spatial_pyramid_pool"]

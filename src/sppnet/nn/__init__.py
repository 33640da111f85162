"""Pyramid pooling as `torch.nn` modules."""

from sppnet.nn.pyramid import RegionPyramidPool2d, SpatialPyramidPool2d

__all__ = ["RegionPyramidPool2d", "SpatialPyramidPool2d"]

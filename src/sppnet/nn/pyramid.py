"""The pooling operations as modules that only store their arguments."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sppnet.ops.bins import LEVELS, check_levels, check_mode, count_bins
from sppnet.ops.pyramid import Mode, region_pyramid_pool, spatial_pyramid_pool


class _Pyramid(nn.Module):
    def __init__(self, levels: Sequence[int] = LEVELS, mode: Mode = "max") -> None:
        super().__init__()
        check_mode(mode)
        self.levels = tuple(check_levels(levels))
        self.mode: Mode = mode

    @property
    def bins(self) -> int:
        """Values a channel in each row."""
        return count_bins(self.levels)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"levels={self.levels}, mode={self.mode!r}"


class SpatialPyramidPool2d(_Pyramid):
    """Whole maps of any size to rows of one length; see `sppnet.ops.spatial_pyramid_pool`.

    Args:
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.

    Shape:
        ``[B, C, H, W]``, or a sequence of B maps ``[C, H_i, W_i]``, to ``[B, C * bins]``.
    """

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """Pool ``maps``."""
        return spatial_pyramid_pool(maps, self.levels, self.mode)


class RegionPyramidPool2d(_Pyramid):
    """Regions of maps to rows of one length; see `sppnet.ops.region_pyramid_pool`.

    Args:
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.

    Shape:
        ``[B, C, H, W]`` and B integer tensors ``[N_i, 4]``, to ``[sum N_i, C * bins]``.
    """

    def forward(self, maps: Tensor, regions: Sequence[Tensor]) -> Tensor:
        """Pool ``regions`` of ``maps``."""
        return region_pyramid_pool(maps, regions, self.levels, self.mode)

"""The pooling operations as modules that only store their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from sppnet.ops._arguments import check_scale
from sppnet.ops.bins import LEVELS, Mode, check_levels, check_mode, count_bins
from sppnet.ops.pyramid import region_pyramid_pool, spatial_pyramid_pool

if TYPE_CHECKING:
    from sppnet.ops.pyramid import Maps, Regions


class _PyramidPool2d(nn.Module):
    def __init__(self, levels: Sequence[int] = LEVELS, mode: Mode = "max") -> None:
        super().__init__()
        self.levels = tuple(check_levels(levels))
        self.mode: Mode = check_mode(mode)

    @property
    def bins(self) -> int:
        """Number of bins: the values per channel in each feature vector."""
        return count_bins(self.levels)

    def extra_repr(self) -> str:
        """Return the arguments as ``print`` shows them."""
        return f"levels={self.levels}, mode={self.mode!r}"


class SpatialPyramidPool2d(_PyramidPool2d):
    """Pool whole maps of any size into feature vectors of one length; see `sppnet.ops.spatial_pyramid_pool`.

    Args:
        levels: bins per side of each level.
        mode: ``"max"``, or ``"mean"`` (or its synonym ``"avg"``).

    Shape:
        ``[B, C, H, W]``, or a sequence of B maps ``[C, H_i, W_i]``, to ``[B, C * bins]``.

    Examples:
        >>> pool = SpatialPyramidPool2d((2, 1))
        >>> pool(torch.randn(1, 8, 13, 17)).shape
        torch.Size([1, 40])
    """

    def forward(self, maps: Maps) -> Tensor:
        """Pool ``maps``."""
        return spatial_pyramid_pool(maps, self.levels, self.mode)


class RegionPyramidPool2d(_PyramidPool2d):
    """Pool regions of maps into feature vectors of one length; see `sppnet.ops.region_pyramid_pool`.

    Args:
        levels: bins per side of each level.
        mode: ``"max"``, or ``"mean"`` (or its synonym ``"avg"``).
        spatial_scale: cells per image pixel, for boxes in image pixels; None for regions in cells.

    Shape:
        ``[B, C, H, W]`` and B tensors ``[N_i, 4]``, or with ``spatial_scale`` one ``[K, 5]``, to
        ``[sum N_i, C * bins]``.

    Examples:
        >>> pool = RegionPyramidPool2d((2, 1), spatial_scale=1 / 16)
        >>> boxes = torch.tensor([[0, 10.0, 10.0, 100.0, 60.0]])
        >>> pool(torch.randn(1, 8, 13, 17), boxes).shape
        torch.Size([1, 40])
    """

    def __init__(
        self,
        levels: Sequence[int] = LEVELS,
        mode: Mode = "max",
        *,
        spatial_scale: float | None = None,
    ) -> None:
        super().__init__(levels, mode)
        self.spatial_scale = None if spatial_scale is None else check_scale(spatial_scale)

    def forward(self, maps: Tensor, regions: Regions) -> Tensor:
        """Pool ``regions`` of ``maps``."""
        return region_pyramid_pool(maps, regions, self.levels, self.mode, spatial_scale=self.spatial_scale)

    def extra_repr(self) -> str:
        """Return the arguments as ``print`` shows them."""
        scale = "" if self.spatial_scale is None else f", spatial_scale={self.spatial_scale}"
        return super().extra_repr() + scale

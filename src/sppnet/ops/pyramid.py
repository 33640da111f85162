"""Pyramid pooling of whole feature maps and of regions.

Shape letters: ``B`` maps, ``C`` channels, ``H`` and ``W`` height and width of a map in cells, ``N`` regions,
``K`` classes; ``bins`` is the sum of the squared levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from sppnet.ops import _library
from sppnet.ops._arguments import check_batch, check_boxes, check_head, check_list, check_regions
from sppnet.ops.bins import LEVELS, Mode, check_levels, check_mode

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Maps = Tensor | NDArray[Any] | Sequence[Tensor] | Sequence[NDArray[Any]]
    Regions = Tensor | NDArray[Any] | Sequence[Tensor] | Sequence[NDArray[Any]] | Sequence[Sequence[Any]]

__all__ = ["LEVELS", "Mode", "region_pyramid_pool", "region_pyramid_scores", "spatial_pyramid_pool"]


def spatial_pyramid_pool(maps: Maps, levels: Sequence[int] = LEVELS, mode: Mode = "max") -> Tensor:
    """Pool whole maps of any size into feature vectors of fixed length (He et al. 2015, section 2.2).

    Args:
        maps: ``[B, C, H, W]``, or a sequence of B maps ``[C, H_i, W_i]`` of one dtype and device, each of
            its own size. float32, float16, bfloat16 or float64, any strides; H and W at least 1. Tensors
            or numpy arrays.
        levels: bins per side of each level; bin i of n spans ``floor(i * size / n)`` to
            ``ceil((i + 1) * size / n)``, so a level may exceed the map.
        mode: ``"max"``, or ``"mean"`` (or its synonym ``"avg"``).

    Returns:
        ``[B, C * bins]`` in the dtype of the maps, ordered by level, then channel, bin row, bin column:
        ``cat([adaptive_max_pool2d(m, n).flatten(1) for n in levels], 1)``.

    Raises:
        UserError: maps have another shape or dtype or no cells, or levels or mode are invalid.

    Examples:
        >>> maps = torch.arange(12.0).view(1, 1, 3, 4)
        >>> spatial_pyramid_pool(maps, levels=(2, 1))
        tensor([[ 5.,  7.,  9., 11., 11.]])
        >>> spatial_pyramid_pool([maps[0], maps[0, :, :2]], levels=(1,), mode="mean")
        tensor([[5.5000],
                [3.5000]])
    """
    sides, mode = check_levels(levels), check_mode(mode)
    if isinstance(maps, Sequence) or not hasattr(maps, "shape"):
        return _library.pool(check_list(maps), [], sides, mode)
    return _library.pool([check_batch(maps)], [], sides, mode)


def region_pyramid_pool(
    maps: Tensor | NDArray[Any],
    regions: Regions,
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
    *,
    spatial_scale: float | None = None,
) -> Tensor:
    """Pool regions of maps into feature vectors of fixed length (He et al. 2015, section 4.1).

    Args:
        maps: ``[B, C, H, W]``, any floating dtype and strides.
        regions: B integer tensors ``[N_i, 4]``: ``(x0, y0, x1, y1)`` in cells, half open,
            ``0 <= x0 < x1 <= W`` and ``0 <= y0 < y1 <= H``. ``N_i`` may be 0. For one map, a single tensor
            is accepted. Arrays and lists are converted. On the device of the maps, or on the CPU, where
            validation does not synchronise with the device.

            With ``spatial_scale``, boxes in image pixels instead, in the format of
            `torchvision.ops.roi_pool`: B tensors ``[N_i, 4]``, or one ``[K, 5]`` with the index of the map
            first. A box covers the cells whose centres lie inside it, left and top edge included, and at
            least the nearest cell.
        levels: bins per side of each level.
        mode: ``"max"``, or ``"mean"`` (or its synonym ``"avg"``).
        spatial_scale: cells per image pixel, such as 1/16; the centre of cell i is at
            ``(i + 0.5) / spatial_scale``.

    Returns:
        ``[sum N_i, C * bins]`` in the dtype of the maps, each feature vector ordered as in
        `spatial_pyramid_pool`; for ``[K, 5]``, in the order of the boxes.

    Raises:
        UserError: as `spatial_pyramid_pool`; or regions are not integers, have another shape, are empty or
            outside their map; or boxes are not finite or reversed. The message names the first one. During
            the capture of a CUDA graph, regions on the device are clamped to their map instead.

    Examples:
        >>> maps = torch.arange(12.0).view(1, 1, 3, 4)
        >>> region_pyramid_pool(maps, torch.tensor([[0, 0, 2, 3], [3, 1, 4, 2]]), levels=(1,))
        tensor([[9.],
                [7.]])
        >>> region_pyramid_pool(maps, torch.tensor([[0, 0.0, 0.0, 32.0, 40.0]]), (1,), spatial_scale=1 / 16)
        tensor([[5.]])
    """
    sides, mode = check_levels(levels), check_mode(mode)
    batch = check_batch(maps)
    if spatial_scale is None:
        return _library.pool_regions(batch, check_regions(batch, regions), sides, mode)
    cells, order = check_boxes(batch, regions, spatial_scale)
    rows = _library.pool_regions(batch, cells, sides, mode)
    return rows if order is None else rows[order]


def region_pyramid_scores(
    maps: Tensor | NDArray[Any],
    regions: Regions,
    weight: Tensor,
    bias: Tensor | None = None,
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
    *,
    spatial_scale: float | None = None,
) -> Tensor:
    """Score regions with a linear head without storing their feature vectors.

    Equal to ``linear(region_pyramid_pool(maps, regions, levels, mode), weight, bias)`` up to rounding.

    Args:
        maps: ``[B, C, H, W]``.
        regions: as in `region_pyramid_pool`.
        weight: ``[K, C * bins]``, columns in the order of the feature vector.
        bias: ``[K]``, or None for none.
        levels: bins per side of each level.
        mode: ``"max"``, or ``"mean"`` (or its synonym ``"avg"``).
        spatial_scale: as in `region_pyramid_pool`.

    Returns:
        ``[sum N_i, K]`` in the dtype of ``weight``.

    Raises:
        UserError: as `region_pyramid_pool`, or weight or bias have another shape, dtype or device.

    Examples:
        >>> maps, weight = torch.ones(1, 2, 3, 4), torch.ones(3, 10)
        >>> region_pyramid_scores(maps, [[[0, 0, 2, 3]]], weight, levels=(2, 1))
        tensor([[10., 10., 10.]])
    """
    sides, mode = check_levels(levels), check_mode(mode)
    batch = check_batch(maps)
    head, added = check_head(batch, weight, bias, sides)
    if spatial_scale is None:
        return _library.score(batch, check_regions(batch, regions), head, added, sides, mode)
    cells, order = check_boxes(batch, regions, spatial_scale)
    scores = _library.score(batch, cells, head, added, sides, mode)
    return scores if order is None else scores[order]

"""The rule that maps boxes on the image to cells of a map, and the choice of the scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops.cells import CellAxis, axis_cells
from sppnet.structures import Boxes, FeatureMap, Grid

TARGET_AREA = 224.0 * 224.0


def _axis(grid: Grid, count: int, original: int) -> CellAxis:
    """Return cell centres in image pixels times the side of the network's input; no scale factor is rounded.

    Coordinates are float32 and sizes are small integers, so that their products are exact in float64. Sums
    are rounded only if a coordinate is within about 1e-12 pixels of a border.
    """
    return CellAxis(grid.first * original, grid.stride * original, count)


def cells(boxes: Boxes, fmap: FeatureMap) -> Tensor:
    """Select the cells of a map whose centres lie in each box (He et al. 2015, appendix A).

    Left and top edges belong to a box, right and bottom edges do not, so that boxes that share an edge
    share no cell. If a box contains no centre along an axis, the cell nearest to its middle is selected,
    the later of two equally near ones. The rule applies to each axis separately, and to cells inside the
    map only.

    Args:
        boxes: ``[N, 4]`` on the image, in pixels; they may exceed its border.
        fmap: a map of the same image.

    Returns:
        int64 ``[N, 4]`` on the device of the boxes, ``(x0, y0, x1, y1)`` in cells, half open; inside the map
        and never empty.

    Raises:
        UserError: the boxes belong to an image of another size.

    Examples:
        >>> from sppnet.structures import Grid, ImageSize
        >>> size = ImageSize(32, 32)
        >>> fmap = FeatureMap(torch.zeros(1, 4, 4), "stride8", Grid(8.0, 4.0), size, size)
        >>> cells(Boxes(torch.tensor([[0.0, 0, 16, 8]]), size), fmap).tolist()
        [[0, 0, 2, 1]]
    """
    if boxes.size != fmap.image:
        raise UserError("boxes.size", f"the size of the map's image, {fmap.image}", boxes.size)
    height, width = fmap.values.shape[1:]
    x0, y0, x1, y1 = boxes.xyxy.to(torch.float64).unbind(1)
    wide, tall = fmap.resized.width, fmap.resized.height
    left, right = axis_cells(x0 * wide, x1 * wide, _axis(fmap.grid, width, fmap.image.width))
    top, bottom = axis_cells(y0 * tall, y1 * tall, _axis(fmap.grid, height, fmap.image.height))
    return torch.stack([left, top, right, bottom], 1)


def choose_scale(boxes: Boxes, maps: Sequence[FeatureMap], target_area: float = TARGET_AREA) -> Tensor:
    """Choose the scale at which the area of each box is nearest to a target (He et al. 2015, section 4.1).

    Args:
        boxes: ``[N, 4]`` on the image.
        maps: one map per scale, all of one layer.
        target_area: area in square pixels of the network's input; 224 x 224 in the paper.

    Returns:
        int64 ``[N]``, indices into ``maps``; the first of equally near ones.

    Raises:
        UserError: there are no maps, or the target is not positive.

    Examples:
        >>> from sppnet.structures import Grid, ImageSize
        >>> size, grid, values = ImageSize(64, 64), Grid(8.0, 4.0), torch.zeros(1, 8, 8)
        >>> maps = [FeatureMap(values, "stride8", grid, ImageSize(s, s), size) for s in (64, 128)]
        >>> choose_scale(Boxes(torch.tensor([[0.0, 0, 20, 20], [0, 0, 60, 60]]), size), maps, 40.0**2)
        tensor([1, 0])
    """
    if not maps:
        raise UserError("maps", "at least one map", "none")
    if not target_area > 0:
        raise UserError("target_area", "square pixels above 0", target_area)
    factors = [m.scale[0] * m.scale[1] for m in maps]
    areas = boxes.areas.to(torch.float64)
    scaled = areas[:, None] * areas.new_tensor(factors)
    # The order of ties is undefined in argmin, but not in a stable sort.
    return torch.sort((scaled - target_area).abs(), dim=1, stable=True).indices[:, 0]

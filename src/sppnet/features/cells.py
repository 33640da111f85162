"""From boxes on the image to cells of a map: one rule, and the choice of the scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops.cells import CellAxis, axis_cells
from sppnet.structures import Boxes, FeatureMap, Grid

TARGET_AREA = 224.0 * 224.0


def _axis(grid: Grid, count: int, original: int) -> CellAxis:
    """Cell centres in image pixels times the side of the network's input, so that no scale factor is rounded.

    Coordinates are float32 and sizes small integers: their products are exact in float64. Sums are rounded
    only where a coordinate is some 10^-12 of a pixel from a border.
    """
    return CellAxis(grid.first * original, grid.stride * original, count)


def cells(boxes: Boxes, fmap: FeatureMap) -> Tensor:
    """The cells of a map that belong to each box: those whose centres lie in it (appendix A).

    A centre on the left or top edge lies in the box, one on the right or bottom edge does not, so that
    boxes that share an edge share no cell. Where an axis has no centre inside, it gets the one cell
    nearest to the box's middle, the later of two. The rule holds for each axis by itself, and only
    cells of the map count.

    Args:
        boxes: on the image, in its pixels; they may reach over its border.
        fmap: a map of the same image.

    Returns:
        int64 ``[N, 4]`` on the boxes' device, ``(x0, y0, x1, y1)`` in cells, half open; inside the map,
        never empty.

    Raises:
        UserError: boxes of an image of another size.
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
    """The scale at which each box's area comes nearest to a target (section 4.1).

    Args:
        boxes: on the image.
        maps: one map a scale, all of one layer.
        target_area: square pixels of the network's input; the paper's is 224 x 224.

    Returns:
        int64 ``[N]``, positions in ``maps``; the first of equally near ones.

    Raises:
        UserError: no maps, or a target of 0 or less.
    """
    if not maps:
        raise UserError("maps", "at least one map", "none")
    if not target_area > 0:
        raise UserError("target_area", "square pixels above 0", target_area)
    factors = [m.scale[0] * m.scale[1] for m in maps]
    areas = boxes.areas.to(torch.float64)
    scaled = areas[:, None] * areas.new_tensor(factors)
    # argmin promises nothing about ties; a stable sort does.
    return torch.sort((scaled - target_area).abs(), dim=1, stable=True).indices[:, 0]

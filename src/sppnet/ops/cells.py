"""Conversion of coordinates to feature-map cells, with the only rounding rule for them.

The rule of the paper (He et al. 2015, appendix A) in symmetric form: a box owns the cells whose centres lie
inside it. A centre on the left or top edge is inside, one on the right or bottom edge is not, so that boxes
that share an edge share no cell. If no centre is inside along an axis, the box owns the cell nearest to its
middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FAR = float(1 << 52)
"""Coordinates are clamped to this value, which is outside of every map and has finite products."""


@dataclass(frozen=True)
class CellAxis:
    """Cell centres along one axis: the centre of cell i is at ``first + i * stride``.

    Attributes:
        first: centre of cell 0.
        stride: distance of neighbouring centres, above 0.
        count: number of cells.
    """

    first: float
    stride: float
    count: int


def floor_quotient(numerator: Tensor, denominator: float) -> Tensor:
    """Compute ``floor(numerator / denominator)`` of exact float64 numbers; the denominator is above 0.

    Rounding can move the quotient over an integer; the product with the denominator, which is exact, detects
    this.
    """
    whole = torch.floor(numerator / denominator)
    above = ((whole + 1) * denominator <= numerator).double()
    return whole + above - (whole * denominator > numerator).double()


def axis_cells(low: Tensor, high: Tensor, axis: CellAxis) -> tuple[Tensor, Tensor]:
    """Compute the cells between two edges.

    Args:
        low: left or top edges ``[N]``, float64, in the units of ``axis``.
        high: right or bottom edges ``[N]``.
        axis: cell centres of the map.

    Returns:
        int64 ``[N]``: the first cell and the one past the last; at least one cell, inside the map.

    Examples:
        >>> low, high = torch.tensor([8.0, 9.0], dtype=torch.float64), torch.tensor([40.0, 11.0])
        >>> axis_cells(low, high.double(), CellAxis(first=8.0, stride=16.0, count=4))
        (tensor([0, 0]), tensor([2, 1]))
    """
    low, high = low.clamp(-_FAR, _FAR), high.clamp(-_FAR, _FAR)
    # The first cell at or after an edge is the ceiling, computed as the floor of the negative.
    start = (-floor_quotient(axis.first - low, axis.stride)).clamp(0, axis.count)
    stop = (-floor_quotient(axis.first - high, axis.stride)).clamp(0, axis.count)
    middle = low + high - 2 * axis.first + axis.stride
    nearest = floor_quotient(middle, 2 * axis.stride).clamp(0, axis.count - 1)
    empty = stop <= start
    start = torch.where(empty, nearest, start)
    return start.to(torch.int64), torch.where(empty, nearest + 1, stop).to(torch.int64)


def scaled_cells(boxes: Tensor, spatial_scale: float, height: int, width: int) -> Tensor:
    """Compute the cells of boxes in image pixels; the centre of cell i is ``(i + 0.5) / spatial_scale``.

    Args:
        boxes: ``[N, 4]``, ``(x0, y0, x1, y1)``, finite.
        spatial_scale: cells per image pixel. The reciprocal of an integer is treated as exact.
        height: height of the map in cells.
        width: width of the map in cells.

    Returns:
        int64 ``[N, 4]``: regions ``(x0, y0, x1, y1)``, half open, inside the map.

    Examples:
        >>> scaled_cells(torch.tensor([[0.0, 0.0, 32.0, 8.0]]), 1 / 16, 4, 4)
        tensor([[0, 0, 2, 1]])
    """
    stride = 1 / spatial_scale
    if abs(stride - round(stride)) <= 1e-9 * stride:
        stride = float(round(stride))
    x0, y0, x1, y1 = boxes.to(torch.float64).unbind(-1)
    left, right = axis_cells(x0, x1, CellAxis(stride / 2, stride, width))
    top, bottom = axis_cells(y0, y1, CellAxis(stride / 2, stride, height))
    return torch.stack([left, top, right, bottom], -1)

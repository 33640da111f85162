"""ONNX graphs from boxes to cells: the rules of `sppnet.features.cells` and `sppnet.detect.cells`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sppnet.export.geometry import Size
from sppnet.export.parts import CellParts
from sppnet.export.value import Value
from sppnet.features.cells import TARGET_AREA


@dataclass(frozen=True)
class GridMap:
    """A feature map and the grid of its cells.

    Attributes:
        values: float32 ``[H, W, C]``.
        stride: distance of two cells in pixels of the input of the network.
        first: the centre of the first cell.
        resized: the size of the input of the network.
        image: the size of the image.
    """

    values: Value
    stride: float
    first: float
    resized: Size
    image: Size


def by_scale(
    boxes: Value,
    maps: Sequence[GridMap],
    rule: CellParts,
    layer: int,
    compute: Callable[[GridMap, Value], Value],
) -> Value:
    """Compute something of the cells of each box, on the map of the scale that suits the box.

    Args:
        boxes: float32 ``[N, 4]``.
        maps: those of a layer, one per scale.
        rule: from boxes to cells.
        layer: the number of the layer.
        compute: maps a map and regions, int64 ``[M, 4]``, to ``[M, ...]``.

    Returns:
        ``[N, ...]``.
    """
    if len(maps) == 1:
        return compute(maps[0], cells(boxes, maps[0], rule))
    chosen = _release_scale(boxes, maps, rule.sides[layer]) if rule.sides else _nearest_area(boxes, maps)
    builder = boxes.builder
    positions = [builder.positions(chosen.equal(i)) for i in range(len(maps))]
    parts = [
        compute(fmap, cells(boxes.take(index), fmap, rule))
        for fmap, index in zip(maps, positions, strict=True)
    ]
    order = builder.concat(positions)
    inverse = builder.op("ScatterElements", order, order, builder.range(order.length()), axis=0)
    return builder.concat(parts).take(inverse)


def _nearest_area(boxes: Value, maps: Sequence[GridMap]) -> Value:
    """Choose scales like `sppnet.features.cells.choose_scale`."""
    areas = _areas(boxes)
    factors = [
        _ratio(fmap.resized.height, fmap.image.height) * _ratio(fmap.resized.width, fmap.image.width)
        for fmap in maps
    ]
    return _nearest([areas * factor - TARGET_AREA for factor in factors])


def _release_scale(boxes: Value, maps: Sequence[GridMap], target: float) -> Value:
    """Choose scales like `sppnet.detect.cells.release_scale`."""
    short = maps[0].image.short_side.cast(np.float64)
    wanted = (short * target / _areas(boxes).maximum(1.0).sqrt() + 0.5).floor()
    return _nearest([wanted - fmap.resized.short_side.cast(np.float64) for fmap in maps])


def _nearest(differences: Sequence[Value]) -> Value:
    """Return the number of the smallest absolute difference, the first of equal ones."""
    builder = differences[0].builder
    away = builder.op("Abs", builder.stack(differences, 1))
    return builder.op("ArgMin", away, kind=np.int64, axis=1, keepdims=0)


def _areas(boxes: Value) -> Value:
    sides = boxes.slice(2, 4, 1) - boxes.slice(0, 2, 1)
    return (sides.take(0, 1) * sides.take(1, 1)).cast(np.float64)


def _ratio(resized: Value, image: Value) -> Value:
    return resized.cast(np.float64) / image.cast(np.float64)


def cells(boxes: Value, fmap: GridMap, rule: CellParts | None = None) -> Value:
    """Return the regions, int64 ``[N, 4]``, of float32 boxes ``[N, 4]``."""
    columns = (fmap.resized.width, fmap.image.width, fmap.values.length(1))
    rows = (fmap.resized.height, fmap.image.height, fmap.values.length(0))
    x0, y0, x1, y1 = (boxes.cast(np.float64).take(i, 1) for i in range(4))
    axis = {"centre": _centre_axis, "paper": _paper_axis, "release": _release_axis}[
        "centre" if rule is None else rule.rule
    ]
    left, right = axis(x0, x1, columns, fmap, rule)
    top, bottom = axis(y0, y1, rows, fmap, rule)
    return boxes.builder.stack([left, top, right, bottom], 1)


def _centre_axis(
    low: Value, high: Value, sides: tuple[Value, Value, Value], fmap: GridMap, rule: CellParts | None
) -> tuple[Value, Value]:
    """See `sppnet.features.cells.cells`."""
    builder = low.builder
    zero = builder.constant(0, np.float64)
    scale, side, last = (v.cast(np.float64) for v in sides)
    step, offset = side * fmap.stride, side * fmap.first

    def first_at(edge: Value) -> Value:
        found = zero - _floor_quotient(offset - edge * scale, step)
        return found.maximum(0.0).minimum(last)

    start, stop = first_at(low), first_at(high)
    return _or_nearest(start, stop, (low + high) * scale - offset * 2.0 + step, step * 2.0, last)


def _paper_axis(
    low: Value, high: Value, sides: tuple[Value, Value, Value], fmap: GridMap, rule: CellParts | None
) -> tuple[Value, Value]:
    """See `sppnet.detect.cells.paper_cells`."""
    builder = low.builder
    zero = builder.constant(0, np.float64)
    scale, side, last = (v.cast(np.float64) for v in sides)
    step, offset, half = side * fmap.stride, side * fmap.first, side * 0.5
    start = _floor_quotient(low * scale + half - offset, step) + 1.0
    stop = zero - _floor_quotient(offset + half - high * scale, step)
    start, stop = start.maximum(0.0).minimum(last), stop.maximum(0.0).minimum(last)
    return _or_nearest(start, stop, (low + high) * scale - offset * 2.0 + step, step * 2.0, last)


def _or_nearest(start: Value, stop: Value, middle: Value, step: Value, count: Value) -> tuple[Value, Value]:
    """Replace an empty range by the cell nearest to the middle of the box."""
    builder = start.builder
    nearest = _floor_quotient(middle, step).maximum(0.0).minimum(count - 1.0)
    empty = stop <= start
    start, stop = builder.where(empty, nearest, start), builder.where(empty, nearest + 1.0, stop)
    return start.cast(np.int64), stop.cast(np.int64)


def _release_axis(
    low: Value, high: Value, sides: tuple[Value, Value, Value], fmap: GridMap, rule: CellParts | None
) -> tuple[Value, Value]:
    """See `sppnet.detect.cells.release_cells`."""
    assert rule is not None
    builder = low.builder
    zero = builder.constant(0, np.float64)
    shrunk = fmap.resized.short_side.cast(np.float64) - 1.0
    own = (fmap.image.short_side.cast(np.float64) - 1.0).maximum(1.0)
    count = sides[2].cast(np.float64)
    first = fmap.first + 0.5
    start = ((low * shrunk / own + 1.0 - first + rule.offset) / fmap.stride + 0.5).floor() + 1.0
    end = ((high - 1.0) * shrunk / own + 1.0 - first - rule.offset) / fmap.stride - 0.5
    last = zero - (zero - end).floor() + 1.0
    middle, empty = ((start + last) / 2.0).floor(), start > last
    start, last = builder.where(empty, middle, start), builder.where(empty, middle, last)
    start = (start - 1.0).maximum(0.0).minimum(count - 1.0)
    return start.cast(np.int64), last.maximum(1.0).minimum(count).maximum(start + 1.0).cast(np.int64)


def _floor_quotient(numerator: Value, denominator: Value) -> Value:
    """Return floor(numerator / denominator), corrected for the rounding of the quotient."""
    whole = (numerator / denominator).floor()
    low = ((whole + 1.0) * denominator <= numerator).cast(np.float64)
    return whole + low - (whole * denominator > numerator).cast(np.float64)

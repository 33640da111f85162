"""ONNX graphs of the bins of regions, by the rule of `sppnet.ops.bins`, each distinct bin once.

Bins are found by scattering into tables; sorting takes several times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sppnet.export.value import Value

LOGARITHMS = 32
"""More than the binary logarithm of any side."""


@dataclass(frozen=True)
class Axis:
    """The distinct ranges of cells of all bins along an axis, in the order of their lengths.

    Attributes:
        start: first cells, int64 ``[U]``.
        stop: the cells past the last, int64 ``[U]``.
        number: the number of the range of each bin, level by level, int64 ``[N, sum(levels)]``.
        logarithm: binary logarithms of the lengths, rounded down, int64 ``[U]``.
        first: for each logarithm, the number of its first range, int64 ``[33]``.
    """

    start: Value
    stop: Value
    number: Value
    logarithm: Value
    first: Value

    @property
    def length(self) -> Value:
        """Numbers of cells, int64 ``[U]``."""
        return self.stop - self.start

    def count(self, logarithm: Value) -> Value:
        """Return the number of ranges of a logarithm."""
        return self.first.take(logarithm + 1) - self.first.take(logarithm)


def axis_bins(low: Value, high: Value, levels: Sequence[int]) -> tuple[Value, Value]:
    """Return the ranges of all bins along an axis.

    Args:
        low: first cells of regions, int64 ``[N, 1]``.
        high: the cells past the last.
        levels: bins along the axis for each level.

    Returns:
        First cells, and those past the last, int64 ``[N, sum(levels)]``.
    """
    builder = low.builder
    n = builder.constant(np.repeat(levels, levels), np.int64)
    number = np.concatenate([np.arange(k) for k in levels])
    side = high - low
    first = side * builder.constant(number, np.int64) / n
    last = (side * builder.constant(number + 1, np.int64) + (n - 1)) / n
    return low + first, low + last


def bin_axes(levels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the row and of the column, in `axis_bins`, of each bin, row by row."""
    starts = np.cumsum([0, *levels[:-1]])
    rows = [start + np.repeat(np.arange(k), k) for start, k in zip(starts, levels, strict=True)]
    columns = [start + np.tile(np.arange(k), k) for start, k in zip(starts, levels, strict=True)]
    return np.concatenate(rows), np.concatenate(columns)


def distinct(keys: Value, count: Value) -> tuple[Value, Value]:
    """Return the distinct keys, ascending, and a table from keys to their numbers.

    Args:
        keys: int64 ``[R]``, at least 0 and below ``count``.
        count: int64 ``[]``.
    """
    builder = keys.builder
    present = builder.scattered(count, keys, keys >= 0)
    found = builder.positions(present)
    return found, builder.scattered(count, found, builder.range(found.length()))


def distinct_ranges(low: Value, high: Value, side: Value, levels: Sequence[int]) -> Axis:
    """Return the ranges along an axis of a map with ``side`` cells."""
    builder = low.builder
    start, stop = axis_bins(low, high, levels)
    key = (stop - start - 1) * side + start
    found, table = distinct(key.reshape(-1), side * side)
    length = found / side + 1
    first = found - (length - 1) * side
    powers = builder.constant([2**k for k in range(1, LOGARITHMS)], np.int64)
    logarithm = (length.unsqueeze(1) >= powers).cast(np.int64).reduce("Sum", 1)
    steps = builder.constant(np.arange(LOGARITHMS + 1)[:, None], np.int64)
    below = (logarithm.unsqueeze(0) < steps).cast(np.int64).reduce("Sum", 1)
    return Axis(first, first + length, table.take(key), logarithm, below)


@dataclass(frozen=True)
class Bins:
    """The U distinct bins of regions.

    They are numbered table by table, a table being a pair of logarithms of height and width.

    Attributes:
        rows: ranges of cells along the height.
        columns: ranges along the width.
        y: the number of the range along the height, int64 ``[U]``.
        x: the number of the range along the width.
        counts: the number of bins of each table ``[1024]``.
        number: the number of each bin of each region, int64 ``[N, bins]``.
    """

    rows: Axis
    columns: Axis
    y: Value
    x: Value
    counts: Value
    number: Value

    def corners(self, width: Value) -> list[Value]:
        """Return, for each bin, the four cells of its table, ``[U]`` each, on a map of a width."""
        powers = width.builder.constant([2**k for k in range(LOGARITHMS)], np.int64)
        edges: list[tuple[Value, Value]] = []
        for axis, at in ((self.rows, self.y), (self.columns, self.x)):
            edges.append((axis.start.take(at), axis.stop.take(at) - powers.take(axis.logarithm.take(at))))
        return [line * width + place for line in edges[0] for place in edges[1]]


def distinct_bins(fmap: Value, regions: Value, levels: Sequence[int]) -> Bins:
    """Find the distinct bins of regions ``[N, 4]`` of a map ``[H, W, C]``."""
    builder = fmap.builder
    left, top, right, bottom = (regions.slice(i, i + 1, 1) for i in range(4))
    rows = distinct_ranges(top, bottom, fmap.length(0), levels)
    columns = distinct_ranges(left, right, fmap.length(1), levels)
    each, zero = builder.constant(np.arange(LOGARITHMS), np.int64), builder.constant(0, np.int64)
    sizes = (rows.count(each).unsqueeze(1) * columns.count(each)).reshape(-1)
    begin = builder.op("CumSum", sizes, zero, exclusive=1)
    row, column = (builder.constant(index, np.int64) for index in bin_axes(levels))
    y, x = rows.number.take(row, 1), columns.number.take(column, 1)
    tall, wide = rows.logarithm.take(y), columns.logarithm.take(x)
    which = tall * LOGARITHMS + wide
    key = begin.take(which) + (y - rows.first.take(tall)) * columns.count(wide)
    key = key + (x - columns.first.take(wide))
    found, numbers = distinct(key.reshape(-1), rows.start.length() * columns.start.length())
    number = numbers.take(key)
    # Of equal bins any one describes them.
    flat, count = number.reshape(-1), found.length()
    table, y, x = (builder.scattered(count, flat, values.reshape(-1)) for values in (which, y, x))
    counts = builder.scattered(sizes.length(), table, table * 0 + 1, reduction="add")
    return Bins(rows, columns, y, x, counts, number)

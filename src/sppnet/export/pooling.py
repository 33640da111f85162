"""Pyramid pooling with standard ONNX operators, exact for every size.

The maximum of a rectangle is the maximum of four overlapping blocks whose sides are powers of two (a sparse
table). Each table of block maxima is computed from the previous one, up to the largest block that a bin
needs. Equal bins are pooled once. A mean is computed from four entries of an integral image in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sppnet.export.value import Value
from sppnet.ops.bins import count_bins

_KEY = 32  # exceeds the binary logarithm of any side


@dataclass(frozen=True)
class Bins:
    """The rectangles of all bins of N regions.

    Attributes:
        left, top, right, bottom: int64 ``[N, bins]`` in cells, half open.
    """

    left: Value
    top: Value
    right: Value
    bottom: Value


def region_bins(regions: Value, levels: Sequence[int]) -> Bins:
    """Return the bins of regions ``[N, 4]``, level by level and row by row."""
    builder = regions.builder
    n = builder.constant(np.repeat(levels, [k * k for k in levels]), np.int64)
    row = np.concatenate([np.repeat(np.arange(k), k) for k in levels])
    column = np.concatenate([np.tile(np.arange(k), k) for k in levels])

    def edges(axis: int, number: np.ndarray) -> tuple[Value, Value]:
        low = regions.slice(axis, axis + 1, 1)
        side = regions.slice(axis + 2, axis + 3, 1) - low
        first = side * builder.constant(number, np.int64) / n
        last = (side * builder.constant(number + 1, np.int64) + (n - 1)) / n
        return low + first, low + last

    left, right = edges(0, column)
    top, bottom = edges(1, row)
    return Bins(left, top, right, bottom)


def distinct(keys: Value) -> tuple[Value, Value]:
    """Return an index of each distinct key of ``[R]``, by ascending key, and the number of each key."""
    builder = keys.builder
    ordered, index = builder.sort(keys, descending=False)
    first = ordered.slice(0, 1)
    new = builder.concat([first.equal(first), ~ordered.slice(1, 2**62).equal(ordered.slice(0, -1))])
    number = builder.op("CumSum", new.cast(np.int64), builder.constant(0, np.int64)) - 1
    return builder.op("Compress", index, new, axis=0), builder.op(
        "ScatterElements", number, index, number, axis=0
    )


def max_bins(fmap: Value, regions: Value, levels: Sequence[int]) -> tuple[Value, Value]:
    """Return the maxima of all bins of regions.

    Args:
        fmap: ``[H, W, C]``.
        regions: int64 ``[N, 4]``, inside the map and not empty.
        levels: bins along each side of each level.

    Returns:
        The maxima ``[U, C]`` of the U distinct bins, and the number of each bin among them, int64
        ``[N, bins]``.
    """
    builder = fmap.builder
    bins = region_bins(regions, levels)
    left, top, right, bottom = (v.reshape(-1) for v in (bins.left, bins.top, bins.right, bins.bottom))
    height, width = fmap.length(0), fmap.length(1)
    logarithm = _logarithms(height.maximum(width) + 1)
    tall, wide = logarithm.take(bottom - top), logarithm.take(right - left)
    rows, columns = height + 1, width + 1
    # The leading digits of the key are the table, so that bins of the same table are contiguous.
    key = (((tall * _KEY + wide) * rows + top) * rows + bottom) * columns
    chosen, inverse = distinct((key + left) * columns + right)
    corners = builder.stack([v.take(chosen) for v in (left, top, right, bottom, tall, wide)], 1)
    return _range_max(fmap, corners), inverse.reshape(-1, count_bins(levels))


def _logarithms(count: Value) -> Value:
    """Return the binary logarithms of 0 (defined as 0), 1, ... count - 1, rounded down."""
    builder = count.builder
    powers = builder.constant([2**k for k in range(1, _KEY)], np.int64)
    return (builder.range(count).unsqueeze(1) >= powers).cast(np.int64).reduce("Sum", 1)


def _range_max(fmap: Value, corners: Value) -> Value:
    """Return maxima ``[U, C]`` of rectangles ``[U, 6]``: four edges and two logarithms, sorted by these."""
    builder = fmap.builder
    tall, table = corners.take(4, 1), corners.take(4, 1) * _KEY + corners.take(5, 1)
    none = builder.constant([-1], np.int64)
    channels = fmap.length(2)
    nothing = fmap.slice(0, 0).reshape_to(builder.stack([builder.constant(0, np.int64), channels]))
    pieces = builder.op("SequenceConstruct", nothing)
    powers = builder.constant([2**k for k in range(_KEY)], np.int64)

    def heights(a: Value, outer: list[Value]) -> tuple[None, list[Value]]:
        of_height, found = outer
        step = powers.take(a)
        mine = corners.take(5, 1).slice(_count(tall < a), _count(tall <= a))
        most = builder.concat([none, mine]).reduce("Max") + 1

        def widths(b: Value, inner: list[Value]) -> tuple[None, list[Value]]:
            block, so_far = inner
            across = powers.take(b)
            which = a * _KEY + b
            some = corners.slice(_count(table < which), _count(table <= which))
            left, top, right, bottom = (some.take(i, 1) for i in range(4))
            width = block.length(1)
            flat = block.reshape_to(builder.stack([builder.constant(-1, np.int64), channels]))
            rows = (top * width, (bottom - step) * width)
            columns = (left, right - across)
            corner = [flat.take(row + column) for row in rows for column in columns]
            so_far = builder.op("SequenceInsert", so_far, builder.op("Max", *corner))
            # After the last table, a step of the whole width avoids further computation.
            reach = builder.where(b + 1 < most, across, width)
            return None, [_doubled(block, reach, width, 1), so_far]

        _, found = builder.loop([of_height, found], widths, most, (False, True))
        height = of_height.length(0)
        reach = builder.where(a + 1 < tallest, step, height)
        return None, [_doubled(of_height, reach, height, 0), found]

    tallest = builder.concat([none, tall]).reduce("Max") + 1
    _, pieces = builder.loop([fmap, pieces], heights, tallest, (False, True))
    return builder.op("ConcatFromSequence", pieces, axis=0)


def _count(mask: Value) -> Value:
    return mask.cast(np.int64).reduce("Sum")


def _doubled(block: Value, step: Value, length: Value, axis: int) -> Value:
    """Return maxima of blocks of twice the side, from each block and the block one step further."""
    return block.slice(0, length - step, axis).maximum(block.slice(step, 2**62, axis))


def pool_max(fmap: Value, regions: Value, levels: Sequence[int]) -> Value:
    """Pool a map ``[H, W, C]`` like `sppnet.ops.region_pyramid_pool` to ``[N, C * bins]``."""
    pooled, inverse = max_bins(fmap, regions, levels)
    return _joined_levels(fmap, levels, lambda start, stop: pooled.take(inverse.slice(start, stop, 1)))


def pool_mean(fmap: Value, regions: Value, levels: Sequence[int]) -> Value:
    """Pool like `pool_max`, but with the mean of each bin."""
    means = mean_bins(fmap, regions, levels)
    return _joined_levels(fmap, levels, lambda start, stop: means.slice(start, stop, 1))


def _joined_levels(fmap: Value, levels: Sequence[int], part: Callable[[int, int], Value]) -> Value:
    builder, start, parts = fmap.builder, 0, list[Value]()
    for n in levels:
        level = part(start, start + n * n).transpose(0, 2, 1)  # [N, C, n * n]
        length = (fmap.length(2) * (n * n)).unsqueeze(0)
        count = level.length(0).unsqueeze(0)
        parts.append(level.reshape_to(builder.concat([count, length])))
        start += n * n
    return builder.concat(parts, 1)


def score_max(fmap: Value, regions: Value, weight: np.ndarray, levels: Sequence[int]) -> Value:
    """Return ``pool_max(fmap, regions, levels) @ weight.T``, with each distinct bin scored once.

    Args:
        fmap: ``[H, W, C]``.
        regions: int64 ``[N, 4]``.
        weight: ``[K, C * bins]``.
        levels: bins along each side of each level.

    Returns:
        Scores ``[N, K]``.
    """
    builder = fmap.builder
    bins = count_bins(levels)
    by_bin = weight_by_bin(weight, levels)  # [K, bins, C]
    classes, _, channels = by_bin.shape
    table = builder.constant(by_bin.transpose(2, 1, 0).reshape(channels, bins * classes), np.float32)
    pooled, inverse = max_bins(fmap, regions, levels)
    scores = pooled.matmul(table).reshape(-1, classes)
    index = inverse * bins + builder.range(builder.constant(bins, np.int64))
    return scores.take(index).reduce("Sum", 1)


def weight_by_bin(weight: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """Permute weights ``[K, C * bins]``, by level and channel, to ``[K, bins, C]``."""
    channels = weight.shape[1] // count_bins(levels)
    parts = np.split(weight, np.cumsum([channels * n * n for n in levels])[:-1], axis=1)
    return np.concatenate([part.reshape(len(weight), channels, -1) for part in parts], 2).transpose(0, 2, 1)


def mean_bins(fmap: Value, regions: Value, levels: Sequence[int]) -> Value:
    """Return the means ``[N, bins, C]`` of all bins of regions of a map ``[H, W, C]``."""
    builder = fmap.builder
    sums = fmap.cast(np.float64)
    for axis in (0, 1):
        sums = builder.op("CumSum", sums, builder.constant(axis, np.int64))
    sums = builder.op("Pad", sums, builder.constant([1, 1, 0, 0, 0, 0], np.int64))
    width = sums.length(1)
    shape = builder.stack([builder.constant(-1, np.int64), fmap.length(2)])
    flat = sums.reshape_to(shape)
    bins = region_bins(regions, levels)
    upper, lower = bins.top * width, bins.bottom * width
    total = flat.take(lower + bins.right) - flat.take(upper + bins.right)
    total = total - flat.take(lower + bins.left) + flat.take(upper + bins.left)
    cells = (bins.right - bins.left) * (bins.bottom - bins.top)
    return (total / cells.cast(np.float64).unsqueeze(2)).cast(np.float32)


def pool_map(fmap: Value, level: int, mode: str) -> Value:
    """Pool a level of `sppnet.ops.spatial_pyramid_pool` of a map ``[H, W, C]``: ``[C * level * level]``."""
    builder = fmap.builder
    how = "Max" if mode == "max" else "Mean"
    for axis in (0, 1):
        side = fmap.length(axis)
        parts = [
            fmap.slice(side * i / level, (side * (i + 1) + (level - 1)) / level, axis).reduce(
                how, axis, keep=True
            )
            for i in range(level)
        ]
        fmap = builder.concat(parts, axis)
    return fmap.transpose(2, 0, 1).reshape(-1)

"""Pyramid pooling with standard ONNX operators, exact for every size.

The maximum of a rectangle is the maximum of four overlapping blocks whose sides are powers of two (a sparse
table). Each table of block maxima is computed from the previous one, up to the largest block that a bin
needs. A mean is computed from four entries of an integral image. Equal bins are pooled once; they are found
by scattering into tables, as sorting takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sppnet.export.bins import LOGARITHMS, Bins, bin_axes, distinct, distinct_bins, distinct_ranges
from sppnet.export.value import Value
from sppnet.ops.bins import count_bins


def max_bins(
    fmap: Value, regions: Value, levels: Sequence[int], compute: Callable[[Value], Value] | None = None
) -> tuple[Value, Value]:
    """Return the maxima of all bins of regions, or what is computed of them.

    Args:
        fmap: ``[H, W, C]``.
        regions: int64 ``[N, 4]``, inside the map and not empty.
        levels: bins along each side of each level.
        compute: maps maxima ``[M, C]`` to ``[M, L]``.

    Returns:
        The maxima ``[U, C]`` of the U distinct bins, or ``[U, L]``, and the number of each bin among them,
        int64 ``[N, bins]``.
    """
    bins = distinct_bins(fmap, regions, levels)
    return _range_max(fmap, bins, compute or (lambda maxima: maxima)), bins.number


def _range_max(fmap: Value, bins: Bins, compute: Callable[[Value], Value]) -> Value:
    """Return what is computed of the maxima of all bins.

    Tables are flat, ``[cells, C]``: the block of a cell near the right or lower border reaches into other
    cells and is never read.
    """
    builder = fmap.builder
    width, zero = fmap.length(1), builder.constant([0], np.int64)
    cells = fmap.reshape_to(builder.stack([builder.constant(-1, np.int64), fmap.length(2)]))
    pieces = builder.op("SequenceConstruct", compute(cells.slice(0, 0)))
    powers = builder.constant([2**k for k in range(LOGARITHMS)], np.int64)
    corners = bins.corners(width)
    ends = builder.concat([zero, builder.op("CumSum", bins.counts, builder.constant(0, np.int64))])
    # For each height, the tables up to the widest that has bins.
    used = (bins.counts.reshape(LOGARITHMS, LOGARITHMS) > 0).cast(np.int64)
    steps = builder.constant(np.arange(1, LOGARITHMS + 1), np.int64)
    widest = (used * steps).reduce("Max", 1)
    tallest = ((widest > 0).cast(np.int64) * steps).reduce("Max")

    def pooled(block: Value, which: Value, so_far: Value) -> Value:
        start, stop = ends.take(which), ends.take(which + 1)
        upper, lower = (
            block.take(one.slice(start, stop)).maximum(block.take(other.slice(start, stop)))
            for one, other in (corners[:2], corners[2:])
        )
        return builder.op("SequenceInsert", so_far, compute(upper.maximum(lower)))

    def heights(a: Value, outer: list[Value]) -> tuple[None, list[Value]]:
        # The first table is used before the loops, or the doubling after the last one would be for nothing.
        of_height = _doubled(outer[0], powers.take(a) * width)
        return None, [of_height, row_of_tables(of_height, a + 1, outer[1])]

    def row_of_tables(of_height: Value, a: Value, so_far: Value) -> Value:
        so_far = pooled(of_height, a * LOGARITHMS, so_far)

        def widths(b: Value, inner: list[Value]) -> tuple[None, list[Value]]:
            block = _doubled(inner[0], powers.take(b))
            return None, [block, pooled(block, a * LOGARITHMS + b + 1, inner[1])]

        return builder.loop([of_height, so_far], widths, widest.take(a) - 1, (False, True))[1]

    pieces = row_of_tables(cells, builder.constant(0, np.int64), pieces)
    _, pieces = builder.loop([cells, pieces], heights, tallest - 1, (False, True))
    return builder.op("ConcatFromSequence", pieces, axis=0)


def _doubled(block: Value, step: Value) -> Value:
    """Return maxima of blocks of twice the side, from each block and the one a step further."""
    # A negative padding cuts the first cells off.
    zero = block.builder.constant(0, np.int64)
    step = step.minimum(block.length())
    pads = block.builder.stack([zero - step, zero, step, zero])
    return block.maximum(block.builder.op("Pad", block, pads))


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
    scores, inverse = max_bins(fmap, regions, levels, lambda maxima: maxima.matmul(table))
    index = inverse * bins + builder.range(builder.constant(bins, np.int64))
    return scores.reshape(-1, classes).take(index).reduce("Sum", 1)


def weight_by_bin(weight: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """Permute weights ``[K, C * bins]``, by level and channel, to ``[K, bins, C]``."""
    channels = weight.shape[1] // count_bins(levels)
    parts = np.split(weight, np.cumsum([channels * n * n for n in levels])[:-1], axis=1)
    return np.concatenate([part.reshape(len(weight), channels, -1) for part in parts], 2).transpose(0, 2, 1)


def mean_bins(fmap: Value, regions: Value, levels: Sequence[int]) -> Value:
    """Return the means ``[N, bins, C]`` of all bins of regions of a map ``[H, W, C]``.

    The mean of each distinct bin is computed once, from four sums from the corner. These are computed in
    float64 and stored in float32; the mean of the map is subtracted before, so that they stay small. Means
    differ from exact ones by about 1e-5 of the deviation of the map.
    """
    builder = fmap.builder
    middle = fmap.reduce("Mean", 0, 1)
    sums = (fmap - middle).cast(np.float64)
    for axis in (0, 1):
        sums = builder.op("CumSum", sums, builder.constant(axis, np.int64))
    sums = builder.op("Pad", sums.cast(np.float32), builder.constant([1, 1, 0, 0, 0, 0], np.int64))
    width = sums.length(1)
    flat = sums.reshape_to(builder.stack([builder.constant(-1, np.int64), fmap.length(2)]))
    left, top, right, bottom = (regions.slice(i, i + 1, 1) for i in range(4))
    rows, columns = (
        distinct_ranges(top, bottom, fmap.length(0), levels),
        distinct_ranges(left, right, fmap.length(1), levels),
    )
    row, column = (builder.constant(index, np.int64) for index in bin_axes(levels))
    count = columns.start.length().maximum(1)  # onnxruntime refuses to divide nothing by 0
    key = rows.number.take(row, 1) * count + columns.number.take(column, 1)
    found, numbers = distinct(key.reshape(-1), rows.start.length() * count)
    y = found / count
    x = found - y * count
    upper, lower = (edge.take(y) * width for edge in (rows.start, rows.stop))
    near, far = (edge.take(x) for edge in (columns.start, columns.stop))
    total = flat.take(lower + far) - flat.take(upper + far)
    total = total - (flat.take(lower + near) - flat.take(upper + near))
    sides = rows.length.take(y) * columns.length.take(x)
    share = builder.constant(1, np.float32) / sides.cast(np.float32)
    return (total * share.unsqueeze(1) + middle).take(numbers.take(key))


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

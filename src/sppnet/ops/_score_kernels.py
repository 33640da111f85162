"""The compiled loops that score max pooled rows without keeping them; `sppnet.ops._tasks` says how."""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

import numpy as np

from sppnet.ops._blocks import (
    WIDTH,
    build_tables,
    gather,
    part,
    pool_box,
    to_keys,
)
from sppnet.ops._shuffles import floats, sums
from sppnet.ops._simd import (
    fma,
    from_key,
    lanes,
    load,
    store,
    vadd,
    word,
    zero,
)
from sppnet.ops._tasks import FOURS, ROWS, TURN, WEIGHTS, Entry, tables, whole, work


@part
def _dots(bins, rows, weights, target, fresh):
    """4 x 4 dot products of rows, one behind the other, with interleaved weights, as one vector of sums."""
    one = np.float32(0)
    r0, r1, r2, r3 = rows, rows + bins * WIDTH, rows + 2 * bins * WIDTH, rows + 3 * bins * WIDTH
    a00 = a01 = a02 = a03 = a10 = a11 = a12 = a13 = zero(one)
    a20 = a21 = a22 = a23 = a30 = a31 = a32 = a33 = zero(one)
    for at in range(0, bins * WIDTH, WIDTH):
        w0, w1 = load(one, weights + 4 * at), load(one, weights + 4 * at + WIDTH)
        w2, w3 = load(one, weights + 4 * at + 2 * WIDTH), load(one, weights + 4 * at + 3 * WIDTH)
        x = load(one, r0 + at)
        a00, a01, a02, a03 = fma(x, w0, a00), fma(x, w1, a01), fma(x, w2, a02), fma(x, w3, a03)
        x = load(one, r1 + at)
        a10, a11, a12, a13 = fma(x, w0, a10), fma(x, w1, a11), fma(x, w2, a12), fma(x, w3, a13)
        x = load(one, r2 + at)
        a20, a21, a22, a23 = fma(x, w0, a20), fma(x, w1, a21), fma(x, w2, a22), fma(x, w3, a23)
        x = load(one, r3 + at)
        a30, a31, a32, a33 = fma(x, w0, a30), fma(x, w1, a31), fma(x, w2, a32), fma(x, w3, a33)
    total = sums(a00, a01, a02, a03, a10, a11, a12, a13, a20, a21, a22, a23, a30, a31, a32, a33)
    store(target, total if fresh else vadd(load(one, target), total))


@whole
def _score_units(kinds, task, scratch, first, last):
    """Score boxes by max pooled rows without keeping these.

    A unit here is int64 ``[6]``: map, first channel, channel past the last, first box, the one past the
    last, and the place in the output of the first box's sums. The weights are float32
    ``[blocks, fours, bins * parts, 4, 16]``, a part being 16 lanes of a block, the output
    ``[..., fours, 4, 4]``, one for every 4 boxes. ``kinds``: an integer as wide as the floats, the number of
    NaNs, and whether the floats are float16.
    """
    like, turn, half = kinds
    maps, boxes, units, levels, depth, shape = tables(task)
    weights, fours, out = word(task, WEIGHTS), word(task, FOURS), word(task, ROWS)
    bins, across, together = word(shape, 1), word(shape, 4), word(shape, 7)
    parts = lanes(like) // 16
    tile = scratch
    rows = tile + bins * WIDTH
    base = rows + together * bins * parts * WIDTH
    for unit in range(first, last):
        one, start, stop = (
            maps + 48 * word(units, 6 * unit),
            word(units, 6 * unit + 3),
            word(units, 6 * unit + 4),
        )
        opening, height, width = word(units, 6 * unit + 1), word(one, 1), word(one, 2)
        down = (width * WIDTH) << (word(shape, 2) - 1)
        for channel in range(opening, word(units, 6 * unit + 2), lanes(like)):
            gather(like, base, one, channel, word(shape, 0))
            to_keys(like, base, height * width, turn)
            build_tables(like, base, height, width, word(shape, 2), word(shape, 3))
            head = weights + channel // lanes(like) * fours * bins * parts * 4 * WIDTH
            for r in range(start, stop, together):
                target = out + (word(units, 6 * unit + 5) + (r - start) // 4) * fours * WIDTH
                some = min(together, stop - r)
                for i in range(some):
                    pool_box(like, tile, base, boxes + 24 * (r + i), levels, depth, across, down)
                    at = rows + i * bins * parts * WIDTH
                    for b in range(tile, tile + bins * WIDTH, WIDTH):
                        value = from_key(load(like, b), turn)
                        store(at, floats(value, 0, half))
                        at += WIDTH
                        if parts == 2:
                            store(at, floats(value, 1, half))
                            at += WIDTH
                for k in range(fours):
                    for i in range(0, some, 4):
                        four = target + (i // 4 * fours + k) * WIDTH
                        place = rows + i * bins * parts * WIDTH
                        _dots(
                            bins * parts, place, head + k * bins * parts * 4 * WIDTH, four, channel == opening
                        )


@Entry
def scores_16(task):
    """Scores from bfloat16."""
    work(_score_units, (np.int16(0), np.int16(word(task, TURN)), False), task)


@Entry
def scores_half(task):
    """Scores from float16."""
    work(_score_units, (np.int16(0), np.int16(word(task, TURN)), True), task)


@Entry
def scores_32(task):
    """Scores from float32."""
    work(_score_units, (np.int32(0), np.int32(word(task, TURN)), False), task)

"""The compiled loops that score max pooled rows without keeping them; `sppnet.ops._tasks` says how."""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

import numpy as np

from sppnet.ops._blocks import WIDTH, gather_numbers
from sppnet.ops._dots import dots
from sppnet.ops._keys import to_ordered
from sppnet.ops._paper import pool_coarse_box
from sppnet.ops._parts import part
from sppnet.ops._shuffles import floats
from sppnet.ops._simd import lanes, least, load, poke, store, vadd, word
from sppnet.ops._tasks import COARSE, FOURS, ODD, ROWS, TURN, WEIGHTS, Entry, tables, work
from sppnet.ops._tiles import build_tables, pool_box


@part
def _score_units(kinds, task, scratch, first, last):
    """Score boxes by max pooled rows without keeping these.

    A unit here is int64 ``[6]``: map, first channel, channel past the last, first box, the one past the
    last, and the place in the output of the first box's sums. The weights are float32
    ``[blocks, fours, bins * parts, 4, 16]``, a part being 16 lanes of a block, the output
    ``[..., fours, 4, 4]``, one for every 4 boxes. ``kinds``: an integer as wide as the floats, the number of
    NaNs, what is compared, and whether the floats are float16. Where a float is NaN, ``ODD`` is set and the
    work left undone.
    """
    like, turn, value, half = kinds
    keyed = lanes(like) == WIDTH // 2
    maps, boxes, units, levels, depth, shape = tables(task)
    weights, fours, out = word(task, WEIGHTS), word(task, FOURS), word(task, ROWS)
    bins, across, together = word(shape, 1), word(shape, 4), word(shape, 7)
    parts, coarse = lanes(like) // 16, word(task, COARSE) != 0
    size = bins * parts * WIDTH
    tile = scratch
    rows = tile + bins * WIDTH
    base = rows + together * size
    for unit in range(first, last):
        this = units + 48 * unit
        one, start, stop = maps + 48 * word(this, 0), word(this, 3), word(this, 4)
        opening, height, width = word(this, 1), word(one, 1), word(one, 2)
        down = (width * WIDTH) << (word(shape, 2) - 1)
        for channel in range(opening, word(this, 2), lanes(like)):
            odd = word(task, ODD) != 0
            if odd or not gather_numbers(like, value, base, one, channel, word(shape, 0), turn):
                poke(task + 8 * ODD, np.int64(1))
                break
            build_tables(value, base, height, width, word(shape, 2), word(shape, 3))
            head = weights + channel // lanes(like) * fours * 4 * size
            for r in range(start, stop, together):
                target = out + (word(this, 5) + (r - start) // 4) * fours * WIDTH
                some = least(together, stop - r)
                for i in range(some):
                    at = rows + i * size
                    pooled = tile if keyed else at
                    box = boxes + 24 * (r + i)
                    if coarse:
                        pool_coarse_box(value, pooled, base, box)
                    else:
                        pool_box(value, pooled, base, box, levels, depth, across, down)
                    if keyed:
                        for b in range(tile, tile + bins * WIDTH, WIDTH):
                            bits = to_ordered(load(like, b))
                            store(at, floats(bits, 0, half))
                            store(at + WIDTH, floats(bits, 1, half))
                            at += 2 * WIDTH
                for k in range(fours):
                    for i in range(0, some, 4):
                        four = target + (i // 4 * fours + k) * WIDTH
                        place = rows + i * size
                        r1, r2, r3 = place + size, place + 2 * size, place + 3 * size
                        total = dots(place, r1, r2, r3, head + 4 * k * size, size)
                        store(four, total if channel == opening else vadd(load(np.float32(0), four), total))


@Entry
def scores_16(task):
    """Scores from bfloat16."""
    work(_score_units, (np.int16(0), np.int16(word(task, TURN)), np.int16(0), False), task)


@Entry
def scores_half(task):
    """Scores from float16."""
    work(_score_units, (np.int16(0), np.int16(word(task, TURN)), np.int16(0), True), task)


@Entry
def scores_32(task):
    """Scores from float32."""
    work(_score_units, (np.int32(0), np.int32(word(task, TURN)), np.float32(0), False), task)

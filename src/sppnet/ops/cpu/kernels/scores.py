"""Linear scores of max pooled features that are not stored: the loop over units, and its entry points."""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

import numpy as np

from sppnet.ops.cpu.args import (
    ACROSS,
    BINS,
    BOX_BYTES,
    BOX_RUN,
    CHANNELS,
    CLASS_FOURS,
    COLUMN_DOUBLINGS,
    FOUND_NAN,
    IS_COARSE,
    MAP_BYTES,
    MAP_HEIGHT,
    MAP_WIDTH,
    NAN_COUNT,
    ROW_DOUBLINGS,
    ROWS,
    SCORE_BOX,
    SCORE_BOX_STOP,
    SCORE_BYTES,
    SCORE_CHANNEL,
    SCORE_CHANNEL_STOP,
    SCORE_MAP,
    SCORE_TARGET,
    WEIGHTS,
)
from sppnet.ops.cpu.jit.dots import dots
from sppnet.ops.cpu.jit.entry import Entry, tables, work
from sppnet.ops.cpu.jit.inline import part
from sppnet.ops.cpu.jit.keys import to_ordered
from sppnet.ops.cpu.jit.paper import pool_coarse_box
from sppnet.ops.cpu.jit.shuffles import floats
from sppnet.ops.cpu.jit.simd import lanes, least, load, poke, store, vadd, word
from sppnet.ops.cpu.kernels.tiles import build_tables, pool_box
from sppnet.ops.cpu.layout import WIDTH, gather_numbers


@part
def _score_units(kinds, args, scratch, first, last):
    """Score boxes by their max pooled features, which are not stored.

    The weights are float32 ``[blocks, fours, bins * parts, 4, 16]``, where a part is 16 lanes of a block; the
    output is ``[..., fours, 4, 4]`` for every 4 boxes. ``kinds``: an integer as wide as the floats, the
    number of NaNs, the type that is compared, and whether the floats are float16. If a float is NaN,
    ``FOUND_NAN`` is set and the computation stops.
    """
    like, turn, value, half = kinds
    keyed = lanes(like) == WIDTH // 2
    maps, boxes, units, levels, depth = tables(args)
    weights, fours, out = word(args, WEIGHTS), word(args, CLASS_FOURS), word(args, ROWS)
    bins, across, together = word(args, BINS), word(args, ACROSS), word(args, BOX_RUN)
    parts, coarse = lanes(like) // 16, word(args, IS_COARSE) != 0
    size = bins * parts * WIDTH
    tile = scratch
    rows = tile + bins * WIDTH
    base = rows + together * size
    for unit in range(first, last):
        this = units + SCORE_BYTES * unit
        one, start, stop = (
            maps + MAP_BYTES * word(this, SCORE_MAP),
            word(this, SCORE_BOX),
            word(this, SCORE_BOX_STOP),
        )
        opening, height, width = word(this, SCORE_CHANNEL), word(one, MAP_HEIGHT), word(one, MAP_WIDTH)
        down = (width * WIDTH) << (word(args, ROW_DOUBLINGS) - 1)
        for channel in range(opening, word(this, SCORE_CHANNEL_STOP), lanes(like)):
            odd = word(args, FOUND_NAN) != 0
            if odd or not gather_numbers(like, value, base, one, channel, word(args, CHANNELS), turn):
                poke(args + 8 * FOUND_NAN, np.int64(1))
                break
            build_tables(value, base, height, width, word(args, ROW_DOUBLINGS), word(args, COLUMN_DOUBLINGS))
            head = weights + channel // lanes(like) * fours * 4 * size
            for r in range(start, stop, together):
                target = out + (word(this, SCORE_TARGET) + (r - start) // 4) * fours * WIDTH
                some = least(together, stop - r)
                for i in range(some):
                    at = rows + i * size
                    pooled = tile if keyed else at
                    box = boxes + BOX_BYTES * (r + i)
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
def scores_16(args):
    """Compute scores from bfloat16."""
    work(_score_units, (np.int16(0), np.int16(word(args, NAN_COUNT)), np.int16(0), False), args)


@Entry
def scores_half(args):
    """Compute scores from float16."""
    work(_score_units, (np.int16(0), np.int16(word(args, NAN_COUNT)), np.int16(0), True), args)


@Entry
def scores_32(args):
    """Compute scores from float32."""
    work(_score_units, (np.int32(0), np.int32(word(args, NAN_COUNT)), np.float32(0), False), args)

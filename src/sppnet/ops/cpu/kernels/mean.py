"""Mean pooling on the CPU and its gradient: loops over units of work, and their entry points."""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

import numpy as np

from sppnet.ops.cpu.args import (
    BINS,
    BOX_BYTES,
    BOX_COLUMNS,
    BOX_CORNER,
    BOX_ROWS,
    CHANNELS,
    EDGE_BYTES,
    LEVEL_BYTES,
    LEVEL_FIRST_BIN,
    LEVEL_SIDE,
    LEVEL_SOURCE,
    MAP_BYTES,
    MAP_HEIGHT,
    MAP_WIDTH,
    ROW_BYTES,
    ROWS,
    STREAMED,
    UNIT_BOX,
    UNIT_BOX_STOP,
    UNIT_BYTES,
    UNIT_CHANNEL,
    UNIT_MAP,
)
from sppnet.ops.cpu.jit.entry import Entry, tables, work
from sppnet.ops.cpu.jit.inline import part
from sppnet.ops.cpu.jit.shuffles import narrow, widen
from sppnet.ops.cpu.jit.simd import fence, lanes, least, load, peek, poke, scaled, store, vadd, word, zero
from sppnet.ops.cpu.kernels.tiles import emit, turn_tile
from sppnet.ops.cpu.layout import WIDTH, gather, spread, to_keys


@part
def _mean_box(like, tile, base, width, box, levels, depth):
    """Compute the means of all bins of one box, from sums in float64."""
    corner = base + word(box, BOX_CORNER)
    for k in range(depth):
        level = levels + LEVEL_BYTES * k
        n, place = word(level, LEVEL_SIDE), EDGE_BYTES * word(level, LEVEL_SOURCE)
        target = tile + word(level, LEVEL_FIRST_BIN) * WIDTH
        columns, rows = word(box, BOX_COLUMNS) + place, word(box, BOX_ROWS) + place
        for i in range(n):
            top, bottom = word(rows, 2 * i), word(rows, 2 * i + 1)
            for j in range(n):
                left, right = word(columns, 2 * j), word(columns, 2 * j + 1)
                low, high = widen(zero(like), 0), widen(zero(like), 1)
                row = corner + top
                while row <= corner + bottom:
                    for cell in range(row + left, row + right + WIDTH, WIDTH):
                        low = vadd(low, widen(load(like, cell), 0))
                        high = vadd(high, widen(load(like, cell), 1))
                    row += width * WIDTH
                count = ((bottom - top) // (width * WIDTH) + 1) * ((right - left) // WIDTH + 1)
                store(target, narrow(like, scaled(low, 1.0 / count), scaled(high, 1.0 / count)))
                target += WIDTH


@part
def _mean_units(kinds, args, scratch, first, last):
    """Compute mean pooling. ``kinds``: an integer and a float of the same width."""
    bits, like = kinds
    maps, boxes, units, levels, depth = tables(args)
    out = word(args, ROWS)
    channels, bins = word(args, CHANNELS), word(args, BINS)
    streamed = word(args, STREAMED) != 0
    stages = scratch + bins * WIDTH
    base = stages + 2 * bins * WIDTH
    length = channels * bins * (WIDTH // lanes(like))
    for unit in range(first, last):
        this = units + UNIT_BYTES * unit
        one, channel = maps + MAP_BYTES * word(this, UNIT_MAP), word(this, UNIT_CHANNEL)
        start, stop = word(this, UNIT_BOX), word(this, UNIT_BOX_STOP)
        gather(like, base, one, channel, channels)
        for r in range(start, stop + 1):
            if r < stop:
                stage = stages + (r & 1) * bins * WIDTH
                _mean_box(like, scratch, base, word(one, MAP_WIDTH), boxes + BOX_BYTES * r, levels, depth)
                to_keys(bits, scratch, bins, bits)
                turn_tile(bits, scratch, stage, levels, depth)
            if r > start:
                other = stages + ((r - 1) & 1) * bins * WIDTH
                row = out + (r - 1) * length
                emit(bits, other, row, levels, depth, channels, channel, bits, streamed)
    fence()


@part
def _scatter(like, totals, width, box, levels, depth, row, channel, args, buffer):
    """Add the gradient of one box, divided by the number of cells of each bin, to all of them."""
    channels = word(args, CHANNELS)
    count, item = lanes(like), WIDTH // lanes(like)
    valid = least(count, channels - channel)
    corner = totals + word(box, BOX_CORNER)
    for k in range(depth):
        level = levels + LEVEL_BYTES * k
        n, before = word(level, LEVEL_SIDE), word(level, LEVEL_FIRST_BIN)
        place = EDGE_BYTES * word(level, LEVEL_SOURCE)
        columns, rows = word(box, BOX_COLUMNS) + place, word(box, BOX_ROWS) + place
        given, step, stride = row + (before * channels + channel * n * n) * item, item, n * n * item
        for i in range(n):
            top, bottom = word(rows, 2 * i), word(rows, 2 * i + 1)
            for j in range(n):
                left, right = word(columns, 2 * j), word(columns, 2 * j + 1)
                for lane in range(valid):
                    poke(buffer + lane * item, peek(like, given + lane * stride))
                cells = ((bottom - top) // (width * WIDTH) + 1) * ((right - left) // WIDTH + 1)
                share = scaled(load(like, buffer), like + 1.0 / cells)
                for y in range(corner + top, corner + bottom + width * WIDTH, width * WIDTH):
                    for cell in range(y + left, y + right + WIDTH, WIDTH):
                        store(cell, vadd(load(like, cell), share))
                given += step


@part
def _mean_gradient_units(kinds, args, scratch, first, last):
    """Compute the gradient of mean pooling; a unit must hold all boxes of its map."""
    (like,) = kinds
    grads, boxes, units, levels, depth = tables(args)
    rows = word(args, ROWS)
    channels, length = word(args, CHANNELS), word(args, ROW_BYTES)
    totals = scratch + WIDTH
    for unit in range(first, last):
        this = units + UNIT_BYTES * unit
        one, channel = grads + MAP_BYTES * word(this, UNIT_MAP), word(this, UNIT_CHANNEL)
        height, width = word(one, MAP_HEIGHT), word(one, MAP_WIDTH)
        for at in range(scratch, totals + height * width * WIDTH, WIDTH):
            store(at, zero(like))
        for r in range(word(this, UNIT_BOX), word(this, UNIT_BOX_STOP)):
            row = rows + r * length
            _scatter(like, totals, width, boxes + BOX_BYTES * r, levels, depth, row, channel, args, scratch)
        spread(like, totals, one, channel, channels)


@Entry
def mean_32(args):
    """Compute mean pooling of float32."""
    work(_mean_units, (np.int32(0), np.float32(0)), args)


@Entry
def mean_gradient_32(args):
    """Compute the gradient of `mean_32`."""
    work(_mean_gradient_units, (np.float32(0),), args)

"""The compiled loops of mean pooling on the CPU and of its gradient; `sppnet.ops._tasks` says how."""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

import numpy as np

from sppnet.ops._blocks import WIDTH, gather, spread, to_keys
from sppnet.ops._parts import part
from sppnet.ops._shuffles import narrow, widen
from sppnet.ops._simd import fence, lanes, least, load, peek, poke, scaled, store, vadd, word, zero
from sppnet.ops._tasks import ROWS, Entry, tables, work
from sppnet.ops._tiles import emit, turn_tile


@part
def _mean_box(like, tile, base, width, box, levels, depth):
    """The means of all bins of one box, from sums in float64."""
    corner = base + word(box, 0)
    for k in range(depth):
        n, place = word(levels, 4 * k), 16 * word(levels, 4 * k + 2)
        target = tile + word(levels, 4 * k + 3) * WIDTH
        columns, rows = word(box, 1) + place, word(box, 2) + place
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
def _mean_units(kinds, task, scratch, first, last):
    """Pool for mean. ``kinds``: an integer and a float of the same width."""
    bits, like = kinds
    maps, boxes, units, levels, depth, shape = tables(task)
    out = word(task, ROWS)
    channels, bins = word(shape, 0), word(shape, 1)
    streamed, by_bin = word(shape, 5) != 0, word(shape, 6) != 0
    stages = scratch + bins * WIDTH
    base = stages + 2 * bins * WIDTH
    length = channels * bins * (WIDTH // lanes(like))
    for unit in range(first, last):
        this = units + 32 * unit
        one, channel = maps + 48 * word(this, 0), word(this, 1)
        start, stop = word(this, 2), word(this, 3)
        gather(like, base, one, channel, channels)
        for r in range(start, stop + 1):
            if r < stop:
                stage = stages + (r & 1) * bins * WIDTH
                tile = stage if by_bin else scratch
                _mean_box(like, tile, base, word(one, 2), boxes + 24 * r, levels, depth)
                to_keys(bits, tile, bins, bits)
                if not by_bin:
                    turn_tile(bits, tile, stage, levels, depth)
            if r > start:
                other = stages + ((r - 1) & 1) * bins * WIDTH
                row = out + (r - 1) * length
                emit(bits, other, row, levels, depth, channels, channel, bits, streamed, by_bin)
    fence()


@part
def _share_out(like, totals, width, box, levels, depth, row, channel, shape, buffer):
    """Add one box's gradient, divided by the cells of each bin, to all of them."""
    channels, by_bin = word(shape, 0), word(shape, 6) != 0
    count, item = lanes(like), WIDTH // lanes(like)
    valid = least(count, channels - channel)
    corner = totals + word(box, 0)
    for k in range(depth):
        n, place, before = word(levels, 4 * k), 16 * word(levels, 4 * k + 2), word(levels, 4 * k + 3)
        columns, rows = word(box, 1) + place, word(box, 2) + place
        given, step, stride = row + (before * channels + channel * n * n) * item, item, n * n * item
        if by_bin:
            given, step, stride = row + (before * channels + channel) * item, channels * item, item
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
def _mean_gradient_units(kinds, task, scratch, first, last):
    """From the gradient of the rows that of the maps, of one type; a unit must hold all boxes of its map."""
    (like,) = kinds
    grads, boxes, units, levels, depth, shape = tables(task)
    rows = word(task, ROWS)
    channels, length = word(shape, 0), word(shape, 8)
    totals = scratch + WIDTH
    for unit in range(first, last):
        this = units + 32 * unit
        one, channel = grads + 48 * word(this, 0), word(this, 1)
        height, width = word(one, 1), word(one, 2)
        for at in range(scratch, totals + height * width * WIDTH, WIDTH):
            store(at, zero(like))
        for r in range(word(this, 2), word(this, 3)):
            row = rows + r * length
            _share_out(like, totals, width, boxes + 24 * r, levels, depth, row, channel, shape, scratch)
        spread(like, totals, one, channel, channels)


@Entry
def mean_32(task):
    """Mean of float32."""
    work(_mean_units, (np.int32(0), np.float32(0)), task)


@Entry
def mean_64(task):
    """Mean of float64."""
    work(_mean_units, (np.int64(0), np.float64(0)), task)


@Entry
def mean_gradient_32(task):
    """The gradient of `mean_32`."""
    work(_mean_gradient_units, (np.float32(0),), task)


@Entry
def mean_gradient_64(task):
    """The gradient of `mean_64`."""
    work(_mean_gradient_units, (np.float64(0),), task)

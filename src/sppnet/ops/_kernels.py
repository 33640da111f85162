"""The compiled loops of pyramid pooling on the CPU, one for each job; `sppnet.ops._blocks` says how.

A *unit* is the work on one block of one map with a run of its boxes, int64 ``[4]``: map, first channel,
first box, the one past the last. Every kernel does the units ``first`` to ``last`` of a task
(`sppnet.ops._tasks`) in memory of its own, ``scratch``, so that threads share nothing but what they read.
``kinds`` are scalars whose types say what is computed with. ``shape`` is int64 ``[10]``:

====  ==========================================================================================
0, 1  channels, bins
2, 3  how many doublings of rows and of columns the tables hold: 1, 1 for no more than the block
4     across, in bytes, or 0 where four places cover every bin
5     whether to stream the output past the caches
6     whether output rows run bin by bin, ``[bins, C]``, and not in the public order
7     how many boxes are scored together
8     bytes from a row of gradients to the next, 0 where all are one
9     how many blocks of a map may be written together
====  ==========================================================================================
"""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

import numpy as np

from sppnet.ops._blocks import (
    WIDTH,
    build_tables,
    emit,
    gather,
    part,
    place_box,
    pool_box,
    spread,
    spread_several,
    to_cells,
    to_keys,
    to_places,
    to_plain_keys,
    together,
    turn_tile,
)
from sppnet.ops._simd import (
    fence,
    floats,
    fma,
    from_key,
    lanes,
    load,
    narrow,
    peek,
    poke,
    prefetch,
    scaled,
    store,
    store_half,
    sums,
    vadd,
    widen,
    word,
    zero,
)
from sppnet.ops._tasks import FOURS, GRADIENTS, PLACES, ROWS, TURN, WEIGHTS, Entry, tables, whole, work


@whole
def _max_units(kinds, task, scratch, first, last):
    """Pool for max. ``kinds``: an integer as wide as the floats, and the number of NaNs of either sign."""
    like, turn = kinds
    maps, boxes, units, levels, depth, shape = tables(task)
    out = word(task, ROWS)
    channels, bins, across = word(shape, 0), word(shape, 1), word(shape, 4)
    streamed, by_bin = word(shape, 5) != 0, word(shape, 6) != 0
    stages = scratch + bins * WIDTH
    base = stages + 2 * bins * WIDTH
    length = channels * bins * (WIDTH // lanes(like))
    for unit in range(first, last):
        one, channel = maps + 48 * word(units, 4 * unit), word(units, 4 * unit + 1)
        start, stop = word(units, 4 * unit + 2), word(units, 4 * unit + 3)
        height, width = word(one, 1), word(one, 2)
        down = (width * WIDTH) << (word(shape, 2) - 1)
        gather(like, base, one, channel, channels)
        to_keys(like, base, height * width, turn)
        build_tables(like, base, height, width, word(shape, 2), word(shape, 3))
        # Rows are written one behind: reading what was stored a moment ago in other pieces stalls.
        for r in range(start, stop + 1):
            if r < stop:
                stage = stages + (r & 1) * bins * WIDTH
                tile = stage if by_bin else scratch
                pool_box(like, tile, base, boxes + 24 * r, levels, depth, across, down)
                if not by_bin:
                    turn_tile(like, tile, stage, levels, depth)
            if r > start:
                other = stages + ((r - 1) & 1) * bins * WIDTH
                row = out + (r - 1) * length
                emit(like, other, row, levels, depth, channels, channel, turn, streamed, by_bin)
    fence()


@part
def _ask_for(like, total, levels, depth, row, channel, shape):
    """Have a block's part of a row of gradients fetched: too short a run for the processor to foresee."""
    channels, item = word(shape, 0), WIDTH // lanes(total)
    if word(shape, 6) != 0:
        return
    for k in range(depth):
        squares, before = word(levels, 4 * k) * word(levels, 4 * k), word(levels, 4 * k + 3)
        start = row + (before * channels + channel * squares) * item
        for at in range(start, start + lanes(like) * squares * item, WIDTH):
            prefetch(at)


@part
def _scatter(like, count, total, places, totals, levels, depth, row, channel, shape):
    """Add one box's gradient to cells, of one vector of ``total`` each.

    ``places`` has for each bin ``count`` integers of the type of ``like``, whose lower half names a cell;
    of int16 the whole.
    """
    size, item = WIDTH // lanes(like), WIDTH // lanes(total)
    mask = (np.int64(1) << np.int64(max(16, 4 * size))) - 1
    channels, by_bin = word(shape, 0), word(shape, 6) != 0
    valid = min(count, channels - channel)
    for k in range(depth):
        squares, before = word(levels, 4 * k) * word(levels, 4 * k), word(levels, 4 * k + 3)
        given, step, stride = row + (before * channels + channel * squares) * item, item, squares * item
        if by_bin:
            given, step, stride = row + (before * channels + channel) * item, channels * item, item
        named = places + before * count * size
        for _ in range(squares):
            # Lane after lane, as sums into one cell wait for one another.
            for lane in range(valid):
                cell = np.int64(peek(like, named + lane * size)) & mask
                place = totals + cell * WIDTH + lane * item
                poke(place, peek(total, place) + peek(total, given + lane * stride))
            given, named = given + step, named + count * size


@whole
def _max_gradient_units(kinds, task, scratch, first, last):
    """From the gradient of the rows that of the maps, each value to the first maximum of its bin.

    ``kinds``: an integer as wide as the floats, which counts the lanes of a unit; one twice as wide or more;
    a float of the type of the gradients; the number of NaNs. A unit must hold all boxes of its map.
    """
    bits, like, total, turn = kinds
    maps, boxes, units, levels, depth, shape = tables(task)
    rows, grads = word(task, ROWS), word(task, GRADIENTS)
    channels, bins, across, length = word(shape, 0), word(shape, 1), word(shape, 4), word(shape, 8)
    low = (np.int64(1) << np.int64(WIDTH * 4 // lanes(like))) - 1
    keys = scratch + bins * WIDTH
    for unit in range(first, last):
        one, opening = maps + 48 * word(units, 4 * unit), word(units, 4 * unit + 1)
        height, width = word(one, 1), word(one, 2)
        block = height * width * WIDTH
        down = (width * WIDTH) << (word(shape, 2) - 1)
        totals = keys + block
        base = totals + lanes(bits) // lanes(total) * block
        for at in range(totals, base, WIDTH):
            store(at, zero(total))
        gather(bits, keys, one, opening, channels)
        to_plain_keys(bits, keys, height * width, turn)
        for number in range(lanes(bits) // lanes(like)):
            lane = number * lanes(like)
            channel = opening + lane
            if channel >= channels:
                break
            to_places(bits, like, keys, base, height * width, number)
            build_tables(like, base, height, width, word(shape, 2), word(shape, 3))
            mine = totals + lane // lanes(total) * block + lane % lanes(total) * (WIDTH // lanes(total))
            for r in range(word(units, 4 * unit + 2), word(units, 4 * unit + 3)):
                _ask_for(like, total, levels, depth, rows + (r + 2) * length, channel, shape)
                pool_box(like, scratch, base, boxes + 24 * r, levels, depth, across, down)
                to_cells(like, scratch, bins, low)
                row, count = rows + r * length, lanes(like)
                _scatter(like, count, total, scratch, mine, levels, depth, row, channel, shape)
        for lane in range(0, min(lanes(bits), channels - opening), lanes(total)):
            target = grads + 48 * word(units, 4 * unit)
            spread(total, totals + lane // lanes(total) * block, target, opening + lane, channels)


@whole
def _placed_max_units(kinds, task, scratch, first, last):
    """As `_max_units` for floats of 32 bits and boxes without tables, and note where the maxima are.

    ``PLACES``, int16 ``[boxes, blocks, bins, 16]``, takes the cell of each bin's first maximum. Both zeros
    come out as 0, and every NaN as the same one. ``kinds``: an integer as wide as the floats.
    """
    (like,) = kinds
    maps, boxes, units, levels, depth, shape = tables(task)
    out, found = word(task, ROWS), word(task, PLACES)
    channels, bins, by_bin = word(shape, 0), word(shape, 1), word(shape, 6) != 0
    places = scratch + bins * WIDTH
    stages = places + bins * WIDTH
    base = stages + 2 * bins * WIDTH
    length, blocks = channels * bins * (WIDTH // lanes(like)), (channels + lanes(like) - 1) // lanes(like)
    for unit in range(first, last):
        one, channel = maps + 48 * word(units, 4 * unit), word(units, 4 * unit + 1)
        start, stop = word(units, 4 * unit + 2), word(units, 4 * unit + 3)
        down = word(one, 2) * WIDTH
        gather(like, base, one, channel, channels)
        to_plain_keys(like, base, word(one, 1) * word(one, 2), like)
        # Rows are written one behind: reading what was stored a moment ago in other pieces stalls.
        for r in range(start, stop + 1):
            if r < stop:
                stage = stages + (r & 1) * bins * WIDTH
                tile = stage if by_bin else scratch
                place_box(like, tile, places, base, boxes + 24 * r, levels, depth, down)
                if not by_bin:
                    turn_tile(like, tile, stage, levels, depth)
                target = found + (r * blocks + channel // lanes(like)) * bins * (WIDTH // 2)
                for b in range(bins):
                    store_half(target + b * (WIDTH // 2), load(like, places + b * WIDTH))
            if r > start:
                other = stages + ((r - 1) & 1) * bins * WIDTH
                row = out + (r - 1) * length
                emit(like, other, row, levels, depth, channels, channel, like, False, by_bin)


@whole
def _placed_gradient_units(kinds, task, scratch, first, last):
    """The gradient of `_placed_max_units` for the maps; a unit must hold all boxes of its map."""
    (total,) = kinds
    grads, _, units, levels, depth, shape = tables(task)
    rows, found = word(task, ROWS), word(task, PLACES)
    channels, bins, length = word(shape, 0), word(shape, 1), word(shape, 8)
    blocks = (channels + lanes(total) - 1) // lanes(total)
    unit = first
    while unit < last:
        one, opening = grads + 48 * word(units, 4 * unit), word(units, 4 * unit + 1)
        block = word(one, 1) * word(one, 2) * WIDTH
        several = together(total, one, opening, channels, min(word(shape, 9), last - unit))
        for number in range(several):
            totals, channel = scratch + number * block, opening + number * lanes(total)
            for at in range(totals, totals + block, WIDTH):
                store(at, zero(total))
            for r in range(word(units, 4 * unit + 2), word(units, 4 * unit + 3)):
                _ask_for(total, total, levels, depth, rows + (r + 2) * length, channel, shape)
                named = found + (r * blocks + channel // lanes(total)) * bins * (WIDTH // 2)
                row, count = rows + r * length, lanes(total)
                _scatter(np.int16(0), count, total, named, totals, levels, depth, row, channel, shape)
        spread_several(total, scratch, one, opening, channels, several, word(shape, 5) != 0)
        unit += several
    fence()


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


@whole
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
        one, channel = maps + 48 * word(units, 4 * unit), word(units, 4 * unit + 1)
        start, stop = word(units, 4 * unit + 2), word(units, 4 * unit + 3)
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
    valid = min(count, channels - channel)
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


@whole
def _mean_gradient_units(kinds, task, scratch, first, last):
    """From the gradient of the rows that of the maps, of one type; a unit must hold all boxes of its map."""
    (like,) = kinds
    grads, boxes, units, levels, depth, shape = tables(task)
    rows = word(task, ROWS)
    channels, length = word(shape, 0), word(shape, 8)
    totals = scratch + WIDTH
    for unit in range(first, last):
        one, channel = grads + 48 * word(units, 4 * unit), word(units, 4 * unit + 1)
        height, width = word(one, 1), word(one, 2)
        for at in range(scratch, totals + height * width * WIDTH, WIDTH):
            store(at, zero(like))
        for r in range(word(units, 4 * unit + 2), word(units, 4 * unit + 3)):
            row = rows + r * length
            _share_out(like, totals, width, boxes + 24 * r, levels, depth, row, channel, shape, scratch)
        spread(like, totals, one, channel, channels)


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


# A way in for each type: first what `work` calls, then its kinds.


@Entry
def max_16(task):
    """Max of float16 and bfloat16."""
    work(_max_units, (np.int16(0), np.int16(word(task, TURN))), task)


@Entry
def max_32(task):
    """Max of float32."""
    work(_max_units, (np.int32(0), np.int32(word(task, TURN))), task)


@Entry
def max_64(task):
    """Max of float64."""
    work(_max_units, (np.int64(0), word(task, TURN)), task)


@Entry
def mean_32(task):
    """Mean of float32."""
    work(_mean_units, (np.int32(0), np.float32(0)), task)


@Entry
def mean_64(task):
    """Mean of float64."""
    work(_mean_units, (np.int64(0), np.float64(0)), task)


@Entry
def max_gradient_16(task):
    """The gradient of `max_16`, for maps of fewer than 65,536 cells."""
    kinds = np.int16(0), np.int32(0), np.float32(0), np.int16(word(task, TURN))
    work(_max_gradient_units, kinds, task)


@Entry
def max_gradient_16_large(task):
    """The gradient of `max_16`."""
    kinds = np.int16(0), np.int64(0), np.float32(0), np.int16(word(task, TURN))
    work(_max_gradient_units, kinds, task)


@Entry
def max_gradient_32(task):
    """The gradient of `max_32`."""
    kinds = np.int32(0), np.int64(0), np.float32(0), np.int32(word(task, TURN))
    work(_max_gradient_units, kinds, task)


@Entry
def max_gradient_64(task):
    """The gradient of `max_64`, given the ranks of the values."""
    kinds = np.int32(0), np.int64(0), np.float64(0), np.int32(word(task, TURN))
    work(_max_gradient_units, kinds, task)


@Entry
def mean_gradient_32(task):
    """The gradient of `mean_32`."""
    work(_mean_gradient_units, (np.float32(0),), task)


@Entry
def mean_gradient_64(task):
    """The gradient of `mean_64`."""
    work(_mean_gradient_units, (np.float64(0),), task)


@Entry
def placed_max(task):
    """Max of float32, with places."""
    work(_placed_max_units, (np.int32(0),), task)


@Entry
def placed_gradient(task):
    """The gradient of `placed_max`."""
    work(_placed_gradient_units, (np.float32(0),), task)


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

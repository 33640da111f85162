"""The compiled loops of max pooling on the CPU and of its gradient; `sppnet.ops._tasks` says how.

Below the loops is a way in for each type: what `work` calls, and its kinds.
"""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

import numpy as np

from sppnet.ops._blocks import (
    WIDTH,
    gather,
    gather_numbers,
    gather_several,
    spread,
    spread_several,
    to_keys,
    to_places,
    to_plain_keys,
    together,
)
from sppnet.ops._paper import pool_paper_box
from sppnet.ops._parts import part
from sppnet.ops._simd import (
    fence,
    greatest,
    lanes,
    least,
    load,
    peek,
    poke,
    prefetch,
    store,
    store_half,
    word,
    zero,
)
from sppnet.ops._tasks import GRADIENTS, LINES, ODD, PLACES, ROWS, TURN, Entry, tables, work
from sppnet.ops._tiles import (
    build_tables,
    emit,
    place_box,
    pool_box,
    stream_paper_box,
    to_cells,
    turn_tile,
)


@part
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
        this = units + 32 * unit
        one, channel = maps + 48 * word(this, 0), word(this, 1)
        start, stop = word(this, 2), word(this, 3)
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
def _paper_units(kinds, task, scratch, first, last):
    """As `_max_units` for the paper's pyramid of regions, four places a bin, past the caches.

    It compares floats of 32 and 64 bits as they are, which spares turning them into keys and back, and where
    one is NaN sets ``ODD`` and leaves the work undone. ``kinds`` has besides what is compared.
    """
    like, turn, value = kinds
    maps, boxes, units, _, _, shape = tables(task)
    channels, length = word(shape, 0), word(shape, 0) * word(shape, 1) * (WIDTH // lanes(like))
    base = scratch + word(shape, 1) * WIDTH
    for unit in range(first, last):
        this = units + 32 * unit
        one, channel = maps + 48 * word(this, 0), word(this, 1)
        height, width = word(one, 1), word(one, 2)
        if word(task, ODD) != 0 or not gather_numbers(like, value, base, one, channel, channels, turn):
            poke(task + 8 * ODD, np.int64(1))
            break
        build_tables(value, base, height, width, word(shape, 2), word(shape, 3))
        for r in range(word(this, 2), word(this, 3)):
            pool_paper_box(value, scratch, base, boxes + 24 * r)
            row = word(task, ROWS) + r * length
            stream_paper_box(value, scratch, row, channels, channel)
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
    mask = (np.int64(1) << np.int64(greatest(16, 4 * size))) - 1
    channels, by_bin = word(shape, 0), word(shape, 6) != 0
    valid = least(count, channels - channel)
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


@part
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
        this = units + 32 * unit
        one, opening = maps + 48 * word(this, 0), word(this, 1)
        height, width = word(one, 1), word(one, 2)
        block = height * width * WIDTH
        down = (width * WIDTH) << (word(shape, 2) - 1)
        totals = keys + block
        base = totals + lanes(bits) // lanes(total) * block
        for at in range(totals, base, WIDTH):
            store(at, zero(total))
        gather(bits, keys, one, opening, channels)
        to_plain_keys(bits, bits, keys, height * width, turn)
        for number in range(lanes(bits) // lanes(like)):
            lane = number * lanes(like)
            channel = opening + lane
            if channel >= channels:
                break
            to_places(bits, like, keys, base, height * width, number)
            build_tables(like, base, height, width, word(shape, 2), word(shape, 3))
            mine = totals + lane // lanes(total) * block + lane % lanes(total) * (WIDTH // lanes(total))
            for r in range(word(this, 2), word(this, 3)):
                _ask_for(like, total, levels, depth, rows + (r + 2) * length, channel, shape)
                pool_box(like, scratch, base, boxes + 24 * r, levels, depth, across, down)
                to_cells(like, scratch, bins, low)
                row, count = rows + r * length, lanes(like)
                _scatter(like, count, total, scratch, mine, levels, depth, row, channel, shape)
        for lane in range(0, least(lanes(bits), channels - opening), lanes(total)):
            target = grads + 48 * word(this, 0)
            spread(total, totals + lane // lanes(total) * block, target, opening + lane, channels)


@part
def _placed_max_units(kinds, task, scratch, first, last):
    """As `_max_units` for float32 and whole maps, one box a map, and note where the maxima are.

    ``PLACES``, int16 ``[maps, blocks, bins, 16]``, takes the cell of each bin's first maximum. ``kinds``: an
    integer as wide as the floats, the number of NaNs, what is compared, and whether that is keys. Then
    both zeros come out as 0, and every NaN as the same one; else a NaN sets ``ODD`` and leaves work undone.
    """
    like, turn, value, keyed = kinds
    maps, boxes, units, levels, depth, shape = tables(task)
    channels, by_bin, lines = word(shape, 0), word(shape, 6) != 0, word(task, LINES)
    tile = word(shape, 1) * WIDTH
    places, stages, keys = scratch + tile, scratch + 2 * tile, scratch + 4 * tile
    each = (channels + lanes(like) - 1) // lanes(like) * tile // 2
    unit = first
    while unit < last:
        number, channel = word(units + 32 * unit, 0), word(units + 32 * unit, 1)
        one, box = maps + 48 * number, boxes + 24 * number
        down = word(one, 2) * WIDTH
        block = word(one, 1) * down
        several = together(like, one, channel, channels, least(word(shape, 9), last - unit))
        plain = gather_several(like, value, keys, one, channel, channels, several, turn)
        if not (plain or keyed):
            poke(task + 8 * ODD, np.int64(1))
            break
        row, base, stage = word(task, ROWS) + number * channels * tile // lanes(like), keys, stages
        found = word(task, PLACES) + number * each + channel // lanes(like) * tile // 2
        ahead = word(one, 0) + channel * word(one, 3) + several * block
        # Rows are written one behind: reading what was stored a moment ago in other pieces stalls.
        for i in range(several + 1):
            other, stage = stage, stages + (i & 1) * tile
            if i < several:
                target = stage if by_bin else scratch
                place_box(like, value, target, places, base, box, levels, depth, down, ahead, lines)
                if not by_bin:
                    turn_tile(value, scratch, stage, levels, depth)
                for at in range(0, tile // 2, WIDTH // 2):
                    store_half(found + at, load(like, places + 2 * at))
                base, ahead, found = base + block, ahead + block, found + tile // 2
            if i > 0:
                emit(value, other, row, levels, depth, channels, channel, value, False, by_bin)
                channel += lanes(like)
        unit += several


@part
def _placed_gradient_units(kinds, task, scratch, first, last):
    """The gradient of `_placed_max_units` for the maps."""
    (total,) = kinds
    grads, _, units, levels, depth, shape = tables(task)
    channels, tile = word(shape, 0), word(shape, 1) * WIDTH
    each = (channels + lanes(total) - 1) // lanes(total) * tile // 2
    unit = first
    while unit < last:
        number, opening = word(units + 32 * unit, 0), word(units + 32 * unit, 1)
        one, row = grads + 48 * number, word(task, ROWS) + number * word(shape, 8)
        block = word(one, 1) * word(one, 2) * WIDTH
        several = together(total, one, opening, channels, least(word(shape, 9), last - unit))
        found = word(task, PLACES) + number * each + opening // lanes(total) * tile // 2
        channel, end = opening, scratch + several * block
        for at in range(scratch, end, WIDTH):
            store(at, zero(total))
        for totals in range(scratch, end, block):
            _ask_for(total, total, levels, depth, row, channel + 2 * lanes(total), shape)
            _scatter(np.int16(0), lanes(total), total, found, totals, levels, depth, row, channel, shape)
            found, channel = found + tile // 2, channel + lanes(total)
        spread_several(total, scratch, one, opening, channels, several, word(shape, 5) != 0)
        unit += several
    fence()


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
def paper_16(task):
    """`max_16` of the paper's pyramid of regions."""
    work(_paper_units, (np.int16(0), np.int16(word(task, TURN)), np.int16(0)), task)


@Entry
def paper_32(task):
    """`max_32` of the paper's pyramid of regions."""
    work(_paper_units, (np.int32(0), np.int32(word(task, TURN)), np.float32(0)), task)


@Entry
def paper_64(task):
    """`max_64` of the paper's pyramid of regions."""
    work(_paper_units, (np.int64(0), word(task, TURN), np.float64(0)), task)


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
def placed_max(task):
    """Max of float32, none of them NaN, with places."""
    work(_placed_max_units, (np.int32(0), np.int32(word(task, TURN)), np.float32(0), False), task)


@Entry
def placed_max_keys(task):
    """Max of float32, with places."""
    work(_placed_max_units, (np.int32(0), np.int32(word(task, TURN)), np.int32(0), True), task)


@Entry
def placed_gradient(task):
    """The gradient of `placed_max`."""
    work(_placed_gradient_units, (np.float32(0),), task)

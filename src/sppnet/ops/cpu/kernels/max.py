"""Max pooling on the CPU and its gradient: loops over units of work, and an entry point per type.

See `sppnet.ops.cpu.jit.entry.work` for the arguments of the loops, `sppnet.ops.cpu.args` for the structs.
"""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

import numpy as np

from sppnet.ops.cpu.args import (
    ACROSS,
    ARGMAX,
    BINS,
    BLOCK_RUN,
    BOX_BYTES,
    CHANNELS,
    COLUMN_DOUBLINGS,
    FOUND_NAN,
    GRADIENTS,
    LEVEL_BYTES,
    LEVEL_FIRST_BIN,
    LEVEL_SIDE,
    MAP_ADDRESS,
    MAP_BYTES,
    MAP_CHANNEL_STEP,
    MAP_HEIGHT,
    MAP_WIDTH,
    NAN_COUNT,
    PREFETCH_LINES,
    ROW_BYTES,
    ROW_DOUBLINGS,
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
from sppnet.ops.cpu.jit.paper import pool_paper_box
from sppnet.ops.cpu.jit.simd import (
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
from sppnet.ops.cpu.kernels.tiles import (
    argmax_box,
    build_tables,
    emit,
    pool_box,
    stream_paper_box,
    to_cells,
    turn_tile,
)
from sppnet.ops.cpu.layout import (
    WIDTH,
    gather,
    gather_numbers,
    gather_several,
    spread,
    spread_several,
    to_cell_keys,
    to_keys,
    to_plain_keys,
    together,
)


@part
def _max_units(kinds, args, scratch, first, last):
    """Compute max pooling. ``kinds``: an integer as wide as the floats, the number of NaNs of either sign."""
    like, turn = kinds
    maps, boxes, units, levels, depth = tables(args)
    out = word(args, ROWS)
    channels, bins, across = word(args, CHANNELS), word(args, BINS), word(args, ACROSS)
    streamed = word(args, STREAMED) != 0
    stages = scratch + bins * WIDTH
    base = stages + 2 * bins * WIDTH
    length = channels * bins * (WIDTH // lanes(like))
    for unit in range(first, last):
        this = units + UNIT_BYTES * unit
        one, channel = maps + MAP_BYTES * word(this, UNIT_MAP), word(this, UNIT_CHANNEL)
        start, stop = word(this, UNIT_BOX), word(this, UNIT_BOX_STOP)
        height, width = word(one, MAP_HEIGHT), word(one, MAP_WIDTH)
        down = (width * WIDTH) << (word(args, ROW_DOUBLINGS) - 1)
        gather(like, base, one, channel, channels)
        to_keys(like, base, height * width, turn)
        build_tables(like, base, height, width, word(args, ROW_DOUBLINGS), word(args, COLUMN_DOUBLINGS))
        # Output is written with a delay of one box, because loads of recent stores of other widths stall.
        for r in range(start, stop + 1):
            if r < stop:
                stage = stages + (r & 1) * bins * WIDTH
                pool_box(like, scratch, base, boxes + BOX_BYTES * r, levels, depth, across, down)
                turn_tile(like, scratch, stage, levels, depth)
            if r > start:
                other = stages + ((r - 1) & 1) * bins * WIDTH
                row = out + (r - 1) * length
                emit(like, other, row, levels, depth, channels, channel, turn, streamed)
    fence()


@part
def _paper_units(kinds, args, scratch, first, last):
    """Compute `_max_units` for the pyramid of the paper, four entries per bin, writing past the caches.

    32-bit floats are compared without conversion to keys. If one is NaN, ``FOUND_NAN`` is set and the
    computation stops. ``kinds`` also has the type that is compared.
    """
    like, turn, value = kinds
    maps, boxes, units, _, _ = tables(args)
    channels, length = word(args, CHANNELS), word(args, CHANNELS) * word(args, BINS) * (WIDTH // lanes(like))
    base = scratch + word(args, BINS) * WIDTH
    for unit in range(first, last):
        this = units + UNIT_BYTES * unit
        one, channel = maps + MAP_BYTES * word(this, UNIT_MAP), word(this, UNIT_CHANNEL)
        height, width = word(one, MAP_HEIGHT), word(one, MAP_WIDTH)
        if word(args, FOUND_NAN) != 0 or not gather_numbers(like, value, base, one, channel, channels, turn):
            poke(args + 8 * FOUND_NAN, np.int64(1))
            break
        build_tables(value, base, height, width, word(args, ROW_DOUBLINGS), word(args, COLUMN_DOUBLINGS))
        for r in range(word(this, UNIT_BOX), word(this, UNIT_BOX_STOP)):
            pool_paper_box(value, scratch, base, boxes + BOX_BYTES * r)
            row = word(args, ROWS) + r * length
            stream_paper_box(value, scratch, row, channels, channel)
    fence()


@part
def _prefetch_row(like, total, levels, depth, row, channel, args):
    """Prefetch the gradients of a block in a row, a run too short for the hardware prefetcher."""
    channels, item = word(args, CHANNELS), WIDTH // lanes(total)
    for k in range(depth):
        level = levels + LEVEL_BYTES * k
        squares, before = word(level, LEVEL_SIDE) * word(level, LEVEL_SIDE), word(level, LEVEL_FIRST_BIN)
        start = row + (before * channels + channel * squares) * item
        for at in range(start, start + lanes(like) * squares * item, WIDTH):
            prefetch(at)


@part
def _scatter(like, count, total, argmax, totals, levels, depth, row, channel, args):
    """Add the gradient of one box to the vectors of its cells in ``total``.

    ``argmax`` has for each bin ``count`` integers of the type of ``like``, whose lower half, or for int16 the
    whole, is a cell index.
    """
    size, item = WIDTH // lanes(like), WIDTH // lanes(total)
    mask = (np.int64(1) << np.int64(greatest(16, 4 * size))) - 1
    channels = word(args, CHANNELS)
    valid = least(count, channels - channel)
    for k in range(depth):
        level = levels + LEVEL_BYTES * k
        squares, before = word(level, LEVEL_SIDE) * word(level, LEVEL_SIDE), word(level, LEVEL_FIRST_BIN)
        given, step, stride = row + (before * channels + channel * squares) * item, item, squares * item
        named = argmax + before * count * size
        for _ in range(squares):
            # Lane by lane, because consecutive sums into one cell depend on each other.
            for lane in range(valid):
                cell = np.int64(peek(like, named + lane * size)) & mask
                place = totals + cell * WIDTH + lane * item
                poke(place, peek(total, place) + peek(total, given + lane * stride))
            given, named = given + step, named + count * size


@part
def _max_gradient_units(kinds, args, scratch, first, last):
    """Compute the gradient of max pooling: each value goes to the first maximum of its bin.

    ``kinds``: an integer as wide as the floats, whose lanes are the channels of a unit; one at least twice as
    wide; a float of the type of the gradients; the number of NaNs. A unit must hold all boxes of its map.
    """
    bits, like, total, turn = kinds
    maps, boxes, units, levels, depth = tables(args)
    rows, grads = word(args, ROWS), word(args, GRADIENTS)
    channels, bins, across, length = (
        word(args, CHANNELS),
        word(args, BINS),
        word(args, ACROSS),
        word(args, ROW_BYTES),
    )
    low = (np.int64(1) << np.int64(WIDTH * 4 // lanes(like))) - 1
    keys = scratch + bins * WIDTH
    for unit in range(first, last):
        this = units + UNIT_BYTES * unit
        one, opening = maps + MAP_BYTES * word(this, UNIT_MAP), word(this, UNIT_CHANNEL)
        height, width = word(one, MAP_HEIGHT), word(one, MAP_WIDTH)
        block = height * width * WIDTH
        down = (width * WIDTH) << (word(args, ROW_DOUBLINGS) - 1)
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
            to_cell_keys(bits, like, keys, base, height * width, number)
            build_tables(like, base, height, width, word(args, ROW_DOUBLINGS), word(args, COLUMN_DOUBLINGS))
            mine = totals + lane // lanes(total) * block + lane % lanes(total) * (WIDTH // lanes(total))
            for r in range(word(this, UNIT_BOX), word(this, UNIT_BOX_STOP)):
                _prefetch_row(like, total, levels, depth, rows + (r + 2) * length, channel, args)
                pool_box(like, scratch, base, boxes + BOX_BYTES * r, levels, depth, across, down)
                to_cells(like, scratch, bins, low)
                row, count = rows + r * length, lanes(like)
                _scatter(like, count, total, scratch, mine, levels, depth, row, channel, args)
        for lane in range(0, least(lanes(bits), channels - opening), lanes(total)):
            target = grads + MAP_BYTES * word(this, UNIT_MAP)
            spread(total, totals + lane // lanes(total) * block, target, opening + lane, channels)


@part
def _argmax_units(kinds, args, scratch, first, last):
    """Compute `_max_units` for float32 and whole maps, one box per map, with argmax indices.

    ``ARGMAX``, int16 ``[maps, blocks, bins, 16]``, receives the cell of the first maximum of each bin.
    ``kinds``: an integer as wide as the floats, the number of NaNs, the type that is compared, and whether
    it is a key. With keys, both zeros are written as 0 and every NaN as the same NaN; without, a NaN sets
    ``FOUND_NAN`` and stops the computation.
    """
    like, turn, value, keyed = kinds
    maps, boxes, units, levels, depth = tables(args)
    channels, lines = word(args, CHANNELS), word(args, PREFETCH_LINES)
    tile = word(args, BINS) * WIDTH
    indices, stages, keys = scratch + tile, scratch + 2 * tile, scratch + 4 * tile
    each = (channels + lanes(like) - 1) // lanes(like) * tile // 2
    unit = first
    while unit < last:
        number, channel = (
            word(units + UNIT_BYTES * unit, UNIT_MAP),
            word(units + UNIT_BYTES * unit, UNIT_CHANNEL),
        )
        one, box = maps + MAP_BYTES * number, boxes + BOX_BYTES * number
        down = word(one, MAP_WIDTH) * WIDTH
        block = word(one, MAP_HEIGHT) * down
        several = together(like, one, channel, channels, least(word(args, BLOCK_RUN), last - unit))
        plain = gather_several(like, value, keys, one, channel, channels, several, turn)
        if not (plain or keyed):
            poke(args + 8 * FOUND_NAN, np.int64(1))
            break
        row, base, stage = word(args, ROWS) + number * channels * tile // lanes(like), keys, stages
        found = word(args, ARGMAX) + number * each + channel // lanes(like) * tile // 2
        ahead = word(one, MAP_ADDRESS) + channel * word(one, MAP_CHANNEL_STEP) + several * block
        # Output is written with a delay of one box, because loads of recent stores of other widths stall.
        for i in range(several + 1):
            other, stage = stage, stages + (i & 1) * tile
            if i < several:
                argmax_box(like, value, scratch, indices, base, box, levels, depth, down, ahead, lines)
                turn_tile(value, scratch, stage, levels, depth)
                for at in range(0, tile // 2, WIDTH // 2):
                    store_half(found + at, load(like, indices + 2 * at))
                base, ahead, found = base + block, ahead + block, found + tile // 2
            if i > 0:
                emit(value, other, row, levels, depth, channels, channel, value, False)
                channel += lanes(like)
        unit += several


@part
def _argmax_gradient_units(kinds, args, scratch, first, last):
    """Compute the gradient of `_argmax_units` for the maps."""
    (total,) = kinds
    grads, _, units, levels, depth = tables(args)
    channels, tile = word(args, CHANNELS), word(args, BINS) * WIDTH
    each = (channels + lanes(total) - 1) // lanes(total) * tile // 2
    unit = first
    while unit < last:
        number, opening = (
            word(units + UNIT_BYTES * unit, UNIT_MAP),
            word(units + UNIT_BYTES * unit, UNIT_CHANNEL),
        )
        one, row = grads + MAP_BYTES * number, word(args, ROWS) + number * word(args, ROW_BYTES)
        block = word(one, MAP_HEIGHT) * word(one, MAP_WIDTH) * WIDTH
        several = together(total, one, opening, channels, least(word(args, BLOCK_RUN), last - unit))
        found = word(args, ARGMAX) + number * each + opening // lanes(total) * tile // 2
        channel, end = opening, scratch + several * block
        for at in range(scratch, end, WIDTH):
            store(at, zero(total))
        for totals in range(scratch, end, block):
            _prefetch_row(total, total, levels, depth, row, channel + 2 * lanes(total), args)
            _scatter(np.int16(0), lanes(total), total, found, totals, levels, depth, row, channel, args)
            found, channel = found + tile // 2, channel + lanes(total)
        spread_several(total, scratch, one, opening, channels, several, word(args, STREAMED) != 0)
        unit += several
    fence()


@Entry
def max_16(args):
    """Compute max pooling of float16 and bfloat16."""
    work(_max_units, (np.int16(0), np.int16(word(args, NAN_COUNT))), args)


@Entry
def max_32(args):
    """Compute max pooling of float32."""
    work(_max_units, (np.int32(0), np.int32(word(args, NAN_COUNT))), args)


@Entry
def paper_16(args):
    """Compute `max_16` for the pyramid of the paper."""
    work(_paper_units, (np.int16(0), np.int16(word(args, NAN_COUNT)), np.int16(0)), args)


@Entry
def paper_32(args):
    """Compute `max_32` for the pyramid of the paper."""
    work(_paper_units, (np.int32(0), np.int32(word(args, NAN_COUNT)), np.float32(0)), args)


@Entry
def max_gradient_16(args):
    """Compute the gradient of `max_16`, for maps of fewer than 65,536 cells."""
    kinds = np.int16(0), np.int32(0), np.float32(0), np.int16(word(args, NAN_COUNT))
    work(_max_gradient_units, kinds, args)


@Entry
def max_gradient_16_large(args):
    """Compute the gradient of `max_16`."""
    kinds = np.int16(0), np.int64(0), np.float32(0), np.int16(word(args, NAN_COUNT))
    work(_max_gradient_units, kinds, args)


@Entry
def max_gradient_32(args):
    """Compute the gradient of `max_32`."""
    kinds = np.int32(0), np.int64(0), np.float32(0), np.int32(word(args, NAN_COUNT))
    work(_max_gradient_units, kinds, args)


@Entry
def argmax_32(args):
    """Compute max pooling of float32 without NaN, with argmax indices."""
    work(_argmax_units, (np.int32(0), np.int32(word(args, NAN_COUNT)), np.float32(0), False), args)


@Entry
def argmax_32_keys(args):
    """Compute max pooling of float32, with argmax indices."""
    work(_argmax_units, (np.int32(0), np.int32(word(args, NAN_COUNT)), np.int32(0), True), args)


@Entry
def argmax_gradient_32(args):
    """Compute the gradient of `argmax_32`."""
    work(_argmax_gradient_units, (np.float32(0),), args)

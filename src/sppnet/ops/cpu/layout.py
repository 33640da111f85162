"""Parts of the kernels that read and write maps, and the layout that they work in.

A *block* has as many channels as a vector has lanes. The channels of a block of one map are stored as one
vector per cell, so that pooling consists of loads and maxima of whole vectors for any strides of the map.
Floats are compared as integers of the same order (`sppnet.ops.cpu.jit.keys.to_key`), which makes NaN the
largest value, as in torch, and requires no conversion of half floats; wider floats without NaN are compared
directly.

Addresses are integers; the callers in `sppnet.ops.cpu.dispatch` are responsible for their range. ``one`` is
the address of the fields of a map (`sppnet.ops.cpu.args`).
"""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

import numpy as np
from numba import types

from sppnet.ops.cpu.args import (
    MAP_ADDRESS,
    MAP_CELL_STEP,
    MAP_CHANNEL_STEP,
    MAP_HEIGHT,
    MAP_ROW_STEP,
    MAP_WIDTH,
)
from sppnet.ops.cpu.jit.inline import part, part_giving
from sppnet.ops.cpu.jit.keys import magnitude, to_key, to_ordered, to_plain_key, with_cell
from sppnet.ops.cpu.jit.shuffles import transpose
from sppnet.ops.cpu.jit.simd import (
    greatest,
    lanes,
    largest,
    least,
    load,
    peek,
    poke,
    store,
    stream,
    vmax,
    word,
    zero,
)

WIDTH = 64


@part
def _copy(like, source, from_row, from_cell, target, to_row, to_cell, height, width, whole):
    """Copy the cells of ``height`` rows: ``whole`` vectors, or one lane of each."""
    for _ in range(height):
        here, there = source, target
        for _ in range(width):
            if whole:
                store(there, load(like, here))
            else:
                poke(there, peek(like, here))
            here, there = here + from_cell, there + to_cell
        source, target = source + from_row, target + to_row


@part
def gather(like, target, one, channel, channels):
    """Copy a block of the map ``one``, from ``channel`` on, to one vector per cell."""
    source, height, width = word(one, MAP_ADDRESS), word(one, MAP_HEIGHT), word(one, MAP_WIDTH)
    by_channel, by_row, by_cell = (
        word(one, MAP_CHANNEL_STEP),
        word(one, MAP_ROW_STEP),
        word(one, MAP_CELL_STEP),
    )
    source += channel * by_channel
    count, size = lanes(like), WIDTH // lanes(like)
    valid, cells = least(count, channels - channel), height * width
    if valid == count and by_channel == size:
        _copy(like, source, by_row, by_cell, target, width * WIDTH, WIDTH, height, width, True)
        return
    if valid == count and by_cell == size and by_row == width * size and cells >= count:
        for at in range(0, cells, count):
            start = least(at, cells - count)
            transpose(like, 32, source + start * size, by_channel, target + start * WIDTH, WIDTH)
        return
    if valid < count:  # lanes without a channel are zeros
        for at in range(target, target + cells * WIDTH, WIDTH):
            store(at, zero(like))
    for lane in range(valid):
        here, there = source + lane * by_channel, target + lane * size
        _copy(like, here, by_row, by_cell, there, width * WIDTH, WIDTH, height, width, False)


@part_giving(types.int64)
def together(like, one, channel, channels, most):
    """Return the number of blocks from ``channel`` on, at most ``most``, to read or write together.

    If the channels of a cell are contiguous, separate accesses for each block are slower.
    """
    if word(one, MAP_CHANNEL_STEP) != WIDTH // lanes(like):
        return 1
    return greatest(1, least(most, (channels - channel) // lanes(like)))


@part
def spread(like, source, one, channel, channels):
    """Write a block to the map ``one``, from ``channel`` on, the inverse of `gather`."""
    target, height, width = word(one, MAP_ADDRESS), word(one, MAP_HEIGHT), word(one, MAP_WIDTH)
    by_channel, by_row, by_cell = (
        word(one, MAP_CHANNEL_STEP),
        word(one, MAP_ROW_STEP),
        word(one, MAP_CELL_STEP),
    )
    target += channel * by_channel
    count, size = lanes(like), WIDTH // lanes(like)
    valid, cells = least(count, channels - channel), height * width
    if valid == count and by_channel == size:
        _copy(like, source, width * WIDTH, WIDTH, target, by_row, by_cell, height, width, True)
        return
    if valid == count and by_cell == size and by_row == width * size and cells >= count:
        for at in range(0, cells, count):
            start = least(at, cells - count)
            transpose(like, 32, source + start * WIDTH, WIDTH, target + start * size, by_channel)
        return
    for lane in range(valid):
        here, there = source + lane * size, target + lane * by_channel
        _copy(like, here, width * WIDTH, WIDTH, there, by_row, by_cell, height, width, False)


@part
def spread_several(like, source, one, channel, channels, count, streamed):
    """Apply `spread` to ``count`` contiguous blocks, as given by `together`; optionally past the caches."""
    if count == 1:
        spread(like, source, one, channel, channels)
        return
    target, height, width = word(one, MAP_ADDRESS), word(one, MAP_HEIGHT), word(one, MAP_WIDTH)
    by_row, by_cell = word(one, MAP_ROW_STEP), word(one, MAP_CELL_STEP)
    target += channel * word(one, MAP_CHANNEL_STEP)
    block = height * width * WIDTH
    for _ in range(height):
        cell = target
        for _ in range(width):
            place = source
            for at in range(cell, cell + count * WIDTH, WIDTH):
                if streamed:
                    stream(at, load(like, place))
                else:
                    store(at, load(like, place))
                place += block
            source, cell = source + WIDTH, cell + by_cell
        target += by_row


@part
def to_keys(like, base, cells, turn):
    """Convert the bits of floats of a block to ordered integers, in place."""
    for at in range(base, base + cells * WIDTH, WIDTH):
        store(at, to_key(load(like, at), turn))


@part_giving(types.boolean)
def _is_nan(like, most, turn):
    """Return whether the largest magnitude of the lanes of ``most``, bits of floats, is that of a NaN."""
    return largest(most) > (np.int64(1) << np.int64(WIDTH * 8 // lanes(like) - 1)) - 1 - turn


@part_giving(types.boolean)
def gather_numbers(like, value, target, one, channel, channels, turn):
    """Copy a block by `gather` for comparisons as ``value``: 16 bits as keys, wider floats unchanged.

    Returns False if a float is NaN. Keys are those of `to_ordered`.
    """
    cells = word(one, MAP_HEIGHT) * word(one, MAP_WIDTH)
    gather(like, target, one, channel, channels)
    most = zero(like)
    for at in range(target, target + cells * WIDTH, WIDTH):
        bits = load(like, at)
        most = vmax(most, magnitude(bits))
        if lanes(value) == WIDTH // 2:
            store(at, to_ordered(bits))
    return not _is_nan(like, most, turn)


@part_giving(types.boolean)
def to_plain_keys(value, bits, base, cells, turn):
    """Apply `to_plain_key` to a block in place; return whether none of its floats is NaN."""
    most = zero(bits)
    for at in range(base, base + cells * WIDTH, WIDTH):
        given = load(bits, at)
        most = vmax(most, magnitude(given))
        store(at, to_plain_key(value, given, turn))
    return not _is_nan(bits, most, turn)


@part_giving(types.boolean)
def gather_several(like, value, target, one, channel, channels, count, turn):
    """Apply `gather` and `to_plain_keys` to ``count`` contiguous blocks, as given by `together`."""
    height, width = word(one, MAP_HEIGHT), word(one, MAP_WIDTH)
    block = height * width * WIDTH
    if count == 1:
        gather(like, target, one, channel, channels)
        return to_plain_keys(value, like, target, height * width, turn)
    source, by_row, by_cell = (
        word(one, MAP_ADDRESS) + channel * word(one, MAP_CHANNEL_STEP),
        word(one, MAP_ROW_STEP),
        word(one, MAP_CELL_STEP),
    )
    most = zero(like)
    for _ in range(height):
        cell = source
        for _ in range(width):
            place = target
            for at in range(cell, cell + count * WIDTH, WIDTH):
                bits = load(like, at)
                most = vmax(most, magnitude(bits))
                store(place, to_plain_key(value, bits, turn))
                place += block
            target, cell = target + WIDTH, cell + by_cell
        source += by_row
    return not _is_nan(like, most, turn)


@part
def to_cell_keys(bits, like, source, target, cells, number):
    """Convert the lanes of part ``number`` of a block of keys to integers of at least twice the width.

    The upper half of each is the key, the lower half counts down along the cells, so that the largest integer
    of a bin has the first cell of its maximum.
    """
    low = (np.int64(1) << np.int64(WIDTH * 4 // lanes(like))) - 1
    for cell in range(cells):
        keys = load(bits, source + cell * WIDTH)
        store(target + cell * WIDTH, with_cell(like, keys, number, low - cell))

"""Parts of the kernels that read and write maps, and the layout that they work in.

A *block* is as many channels as a vector has lanes. The channels of one block of one map are laid out as
one vector per cell, so that pooling is loads and maxima of whole vectors, whatever the strides of the map.
Floats are compared as integers of the same order (`sppnet.ops.cpu.jit.keys.to_key`), which makes NaN the
largest value, as in torch, and needs no conversion of half floats; wider floats without a NaN are compared
as they are.

Addresses are integers; the callers in `sppnet.ops.cpu.dispatch` are responsible for their range. ``one`` is
the address of a map's fields (`sppnet.ops.cpu.args`).
"""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
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
    """Copy the cells of ``height`` rows, their ``whole`` vectors or one lane of each."""
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
    """Lay out a block of the map ``one``, from ``channel`` on, one vector per cell."""
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
    """Number of blocks from ``channel`` on, at most ``most``, to read or write together.

    Where the channels of a cell are contiguous, returning to the cell for each block is slower.
    """
    if word(one, MAP_CHANNEL_STEP) != WIDTH // lanes(like):
        return 1
    return greatest(1, least(most, (channels - channel) // lanes(like)))


@part
def spread(like, source, one, channel, channels):
    """The inverse of `gather`: write a block to the map ``one``, from ``channel`` on."""
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
    """`spread` for ``count`` blocks, one behind the other, as by `together`; optionally past the caches."""
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
    """Whether the largest magnitude of the lanes of ``most``, bits of floats, is that of a NaN."""
    return largest(most) > (np.int64(1) << np.int64(WIDTH * 8 // lanes(like) - 1)) - 1 - turn


@part_giving(types.boolean)
def gather_numbers(like, value, target, one, channel, channels, turn):
    """`gather` a block to be compared as ``value``, 16 bits as keys, wider floats as they are.

    Returns whether it can be: False where a float is NaN. Keys are those of `to_ordered`.
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
    """`to_plain_key` of a block, in place; returns whether none of its floats is NaN."""
    most = zero(bits)
    for at in range(base, base + cells * WIDTH, WIDTH):
        given = load(bits, at)
        most = vmax(most, magnitude(given))
        store(at, to_plain_key(value, given, turn))
    return not _is_nan(bits, most, turn)


@part_giving(types.boolean)
def gather_several(like, value, target, one, channel, channels, count, turn):
    """`gather` and `to_plain_keys` of ``count`` blocks, one behind the other, as given by `together`."""
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
    """Lanes of part ``number`` of a block of keys as integers twice as wide, or more.

    The upper half of each is the key, the lower half counts down along the cells: the largest integer of a
    bin has the first cell of its maximum.
    """
    low = (np.int64(1) << np.int64(WIDTH * 4 // lanes(like))) - 1
    for cell in range(cells):
        keys = load(bits, source + cell * WIDTH)
        store(target + cell * WIDTH, with_cell(like, keys, number, low - cell))

"""Parts of the kernels that pool one box of a block (`sppnet.ops.cpu.layout`).

A bin is pooled directly over its cells, or by *tables* of the maxima of 2^i x 2^j cells from every cell on:
four overlapping entries cover a bin, so that its time does not depend on its area. A level that divides
another level is derived from the bins of that level. The bins of a box, one vector each, are a *tile*.

Boxes, bin edges and levels are as in `sppnet.ops.cpu.args`. A bin is read from its first to its last entry,
in steps of ``across`` between columns and ``down`` between rows, of which the last may be shorter.
"""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

from sppnet.ops.cpu.args import (
    BOX_COLUMNS,
    BOX_CORNER,
    BOX_ROWS,
    EDGE_BYTES,
    LEVEL_BYTES,
    LEVEL_FIRST_BIN,
    LEVEL_PARENT,
    LEVEL_SIDE,
    LEVEL_SOURCE,
)
from sppnet.ops.cpu.jit.inline import part
from sppnet.ops.cpu.jit.keys import from_key, to_cell
from sppnet.ops.cpu.jit.shuffles import stream_turned, transpose
from sppnet.ops.cpu.jit.simd import (
    corners,
    fill,
    lanes,
    least,
    load,
    peek,
    poke,
    prefetch,
    square,
    store,
    stream,
    vadd,
    vmax,
    where_above,
    where_first,
    word,
)
from sppnet.ops.cpu.layout import WIDTH


@part
def build_tables(like, base, height, width, ky, kx):
    """Fill tables of maxima of 2^i x 2^j cells of the block at ``base``, ``i * kx + j`` planes after it."""
    plane = height * width * WIDTH
    for number in range(1, ky * kx):
        i, j = number // kx, number % kx
        here, near, step = base + number * plane, base + (number - kx) * plane, (width * WIDTH << i) // 2
        if i == 0:
            near, step = here - plane, (WIDTH << j) // 2
        length = (width - (1 << j) + 1) * WIDTH
        for y in range(height - (1 << i) + 1):
            row = y * width * WIDTH
            for x in range(row, row + length, WIDTH):
                store(here + x, vmax(load(like, near + x), load(like, near + x + step)))


@part
def pool_box(like, tile, base, box, levels, depth, across, down):
    """Compute the maxima of all bins of one box, one vector per bin, in the public order of the bins.

    A derived level reads the bins of another level. ``across`` is 0 if the four entries at the edges cover
    every bin of the other levels.
    """
    corner = base + word(box, BOX_CORNER)
    for k in range(depth):
        level = levels + LEVEL_BYTES * k
        n, parent, quotient = word(level, LEVEL_SIDE), word(level, LEVEL_PARENT), word(level, LEVEL_SOURCE)
        target, above = tile + word(level, LEVEL_FIRST_BIN) * WIDTH, levels + LEVEL_BYTES * parent
        line, first = word(above, LEVEL_SIDE) * WIDTH, tile + word(above, LEVEL_FIRST_BIN) * WIDTH
        columns, rows = (
            word(box, BOX_COLUMNS) + EDGE_BYTES * quotient,
            word(box, BOX_ROWS) + EDGE_BYTES * quotient,
        )
        for i in range(n):
            if parent != k:
                for at in range(first, first + n * quotient * WIDTH, quotient * WIDTH):
                    if quotient == 2:
                        best = square(like, 2, at, line)
                    elif quotient == 3:
                        best = square(like, 3, at, line)
                    else:
                        best = load(like, at)
                        for a in range(at, at + quotient * line, line):
                            for b in range(a, a + quotient * WIDTH, WIDTH):
                                best = vmax(best, load(like, b))
                    store(target, best)
                    target += WIDTH
                first += quotient * line
            else:
                top, bottom = corner + word(rows + EDGE_BYTES * i, 0), corner + word(rows + EDGE_BYTES * i, 1)
                for j in range(n):
                    left, right = word(columns + EDGE_BYTES * j, 0), word(columns + EDGE_BYTES * j, 1)
                    best = corners(like, top, bottom, left, right)
                    if across != 0:
                        # A while loop, because `range` divides to compute the number of steps.
                        row = top
                        while True:
                            cell, end = row + left, row + right
                            while cell < end:
                                best = vmax(best, load(like, cell))
                                cell += across
                            best = vmax(best, load(like, end))
                            if row >= bottom:
                                break
                            row = least(row + down, bottom)
                    store(target, best)
                    target += WIDTH


@part
def argmax_box(like, value, tile, indices, base, box, levels, depth, down, ahead, lines):
    """Compute `pool_box` without tables, and write the cell of the first maximum of each bin to ``indices``.

    The type of ``value`` is compared, indices have the type of ``like``. At each bin that is pooled from
    cells, ``lines`` cache lines are prefetched from ``ahead`` on, so that memory is read during comparisons.
    """
    corner, one = base + word(box, BOX_CORNER), fill(like, 1)
    for k in range(depth):
        level = levels + LEVEL_BYTES * k
        n, parent, quotient = word(level, LEVEL_SIDE), word(level, LEVEL_PARENT), word(level, LEVEL_SOURCE)
        target, above = word(level, LEVEL_FIRST_BIN) * WIDTH, levels + LEVEL_BYTES * parent
        line, first = word(above, LEVEL_SIDE) * WIDTH, word(above, LEVEL_FIRST_BIN) * WIDTH
        columns, rows = (
            word(box, BOX_COLUMNS) + EDGE_BYTES * quotient,
            word(box, BOX_ROWS) + EDGE_BYTES * quotient,
        )
        for i in range(n):
            for j in range(n):
                if parent != k:
                    start = first + (i * line + j * WIDTH) * quotient
                    best, found = load(value, tile + start), load(like, indices + start)
                    for _ in range(quotient):
                        for at in range(start, start + quotient * WIDTH, WIDTH):
                            key = load(value, tile + at)
                            found = where_first(key, load(like, indices + at), best, found)
                            best = vmax(key, best)
                        start += line
                else:
                    row, bottom = (
                        corner + word(rows + EDGE_BYTES * i, 0),
                        corner + word(rows + EDGE_BYTES * i, 1),
                    )
                    left, right = word(columns + EDGE_BYTES * j, 0), word(columns + EDGE_BYTES * j, 1)
                    best, found = load(value, row + left), fill(like, (row + left - base) // WIDTH)
                    for at in range(ahead, ahead + lines * WIDTH, WIDTH):
                        prefetch(at)
                    ahead += lines * WIDTH
                    # A while loop, because `range` divides to compute the number of steps.
                    while row <= bottom:
                        cell, end = row + left, row + right
                        number = fill(like, (cell - base) // WIDTH)
                        while cell <= end:
                            key = load(value, cell)
                            found = where_above(key, best, number, found)
                            best, number = vmax(key, best), vadd(number, one)
                            cell += WIDTH
                        row += down
                store(tile + target, best)
                store(indices + target, found)
                target += WIDTH


@part
def to_cells(like, tile, bins, low):
    """Replace a tile of `to_cell_keys` integers by their cells."""
    for at in range(tile, tile + bins * WIDTH, WIDTH):
        store(at, to_cell(load(like, at), low))


@part
def turn_tile(like, tile, stage, levels, depth):
    """Transpose a tile of one vector per bin: level by level, the bins of a channel are contiguous."""
    size, most = WIDTH // lanes(like), least(lanes(like), 16)
    for level in range(levels, levels + LEVEL_BYTES * depth, LEVEL_BYTES):
        squares, before = (
            word(level, LEVEL_SIDE) * word(level, LEVEL_SIDE),
            word(level, LEVEL_FIRST_BIN) * WIDTH,
        )
        source, target = tile + before, stage + before
        if squares == 1:
            store(target, load(like, source))
            continue
        step, left = squares * size, squares
        while left >= most:
            transpose(like, 16, source, WIDTH, target, step)
            source, target, left = source + most * WIDTH, target + most * size, left - most
        if left & 8:
            transpose(like, 8, source, WIDTH, target, step)
            source, target = source + 8 * WIDTH, target + 8 * size
        if left & 4:
            transpose(like, 4, source, WIDTH, target, step)
            source, target = source + 4 * WIDTH, target + 4 * size
        # Square numbers have remainders of 0 or 1 modulo 4.
        if left & 1:
            transpose(like, 1, source, WIDTH, target, step)


@part
def emit(like, stage, row, levels, depth, channels, channel, turn, streamed):
    """Write the staged keys of a block into a feature vector, as bits of floats."""
    size = WIDTH // lanes(like)
    valid = least(lanes(like), channels - channel)
    for level in range(levels, levels + LEVEL_BYTES * depth, LEVEL_BYTES):
        squares, before = word(level, LEVEL_SIDE) * word(level, LEVEL_SIDE), word(level, LEVEL_FIRST_BIN)
        source, target = stage + before * WIDTH, row + (before * channels + channel * squares) * size
        end = target + valid * squares * size
        while target + WIDTH <= end:
            bits = from_key(load(like, source), turn)
            if streamed:
                stream(target, bits)
            else:
                store(target, bits)
            source, target = source + WIDTH, target + WIDTH
        if target < end:
            store(source, from_key(load(like, source), turn))
            while target < end:
                poke(target, peek(like, source))
                source, target = source + size, target + size


@part
def stream_paper_box(like, tile, row, channels, channel):
    """Compute `turn_tile` and `emit` for the pyramid of the paper and a full block, past the caches."""
    at, size = tile, WIDTH // lanes(like)
    stream_turned(like, 36, at, row + 36 * channel * size)
    stream_turned(like, 9, at + 36 * WIDTH, row + (36 * channels + 9 * channel) * size)
    stream_turned(like, 4, at + 45 * WIDTH, row + (45 * channels + 4 * channel) * size)
    stream_turned(like, 1, at + 49 * WIDTH, row + (49 * channels + channel) * size)

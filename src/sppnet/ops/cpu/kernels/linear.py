"""The compiled loops of `sppnet.ops.linear`.

Four rows and four vectors are processed together, so that 16 products require 8 loads. A unit of work is a
run of rows with separate totals, so that sums do not depend on the threads.
"""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

import numpy as np
from numba import types

from sppnet.ops.cpu.args import (
    LINEAR_EACH,
    LINEAR_FACTORS,
    LINEAR_FOURS,
    LINEAR_INDEX,
    LINEAR_LENGTH,
    LINEAR_MULTIPLES,
    LINEAR_OFFSETS,
    LINEAR_ROWS,
    LINEAR_TOTALS,
    LINEAR_USED,
    LINEAR_VECTORS,
)
from sppnet.ops.cpu.jit.dots import dots
from sppnet.ops.cpu.jit.entry import Entry, work
from sppnet.ops.cpu.jit.inline import part, part_giving
from sppnet.ops.cpu.jit.simd import Vector, fma, least, load, peek, poke, repeat, store, vadd, word, zero
from sppnet.ops.cpu.layout import WIDTH


@part
def _last_dots(row, vectors, length, target):
    """Add the products of one row and the columns that `dots` omits to the 4 values at ``target``."""
    one = np.float32(0)
    for column in range(length // 16 * 16, length):
        x = peek(one, row + 4 * column)
        place = vectors + column // 16 * 4 * WIDTH + column % 16 * 4
        for k in range(4):
            poke(target + 4 * k, peek(one, target + 4 * k) + x * peek(one, place + k * WIDTH))


@part
def _add(row, factors, total, length):
    """Add the columns that `_add_four` omits, fewer than a vector, for one row."""
    one = np.float32(0)
    for column in range(length // 16 * 16, length):
        x = peek(one, row + 4 * column)
        place = total + column // 16 * 4 * WIDTH + column % 16 * 4
        for k in range(4):
            poke(place + k * WIDTH, peek(one, place + k * WIDTH) + x * peek(one, factors + 4 * k))


@part_giving(types.UniTuple(Vector(types.float32), 4))
def _four(address):
    """Load a vector of 4 scalars."""
    one = np.float32(0)
    a, b = repeat(peek(one, address)), repeat(peek(one, address + 4))
    return a, b, repeat(peek(one, address + 8)), repeat(peek(one, address + 12))


@part
def _add_four(r0, r1, r2, r3, factors, total, length):
    """Add 4 multiples of each of 4 rows to 4 totals ``[..., 4, 16]``; ``factors`` is ``[4 rows, 4]``."""
    one = np.float32(0)
    f00, f01, f02, f03 = _four(factors)
    f10, f11, f12, f13 = _four(factors + 16)
    f20, f21, f22, f23 = _four(factors + 32)
    f30, f31, f32, f33 = _four(factors + 48)
    for at in range(0, length * 4 // WIDTH * WIDTH, WIDTH):
        x0, x1, x2, x3 = load(one, r0 + at), load(one, r1 + at), load(one, r2 + at), load(one, r3 + at)
        place = total + 4 * at
        low = fma(x1, f10, fma(x0, f00, load(one, place)))
        store(place, vadd(low, fma(x3, f30, fma(x2, f20, zero(one)))))
        low = fma(x1, f11, fma(x0, f01, load(one, place + WIDTH)))
        store(place + WIDTH, vadd(low, fma(x3, f31, fma(x2, f21, zero(one)))))
        low = fma(x1, f12, fma(x0, f02, load(one, place + 2 * WIDTH)))
        store(place + 2 * WIDTH, vadd(low, fma(x3, f32, fma(x2, f22, zero(one)))))
        low = fma(x1, f13, fma(x0, f03, load(one, place + 3 * WIDTH)))
        store(place + 3 * WIDTH, vadd(low, fma(x3, f33, fma(x2, f23, zero(one)))))


@part
def _units(kinds, args, scratch, first, last):
    """Compute products of rows and vectors, and sums of multiples of rows.

    With ``VECTORS``, the products, times ``FACTORS`` plus ``OFFSETS`` if given, are written to ``MULTIPLES``;
    all three are ``[used / 4, fours, 4 rows, 4 vectors]``. With ``TOTALS`` ``[units, fours, length / 16, 4,
    16]``, the rows are multiplied by these products, or by ``FACTORS`` without vectors, and summed.
    """
    rows, index, vectors = word(args, LINEAR_ROWS), word(args, LINEAR_INDEX), word(args, LINEAR_VECTORS)
    factors, offsets, totals = (
        word(args, LINEAR_FACTORS),
        word(args, LINEAR_OFFSETS),
        word(args, LINEAR_TOTALS),
    )
    length, fours = word(args, LINEAR_LENGTH), word(args, LINEAR_FOURS)
    wide, whole_bytes = (length + 15) // 16 * 4 * WIDTH, length * 4 // WIDTH * WIDTH
    one = np.float32(0)
    for unit in range(first, last):
        total = totals + unit * fours * wide
        stop = least((unit + 1) * word(args, LINEAR_EACH), word(args, LINEAR_USED))
        for i in range(unit * word(args, LINEAR_EACH), stop, 4):
            r0 = rows + 4 * length * word(index, i)
            r1 = rows + 4 * length * word(index, least(i + 1, stop - 1))
            r2 = rows + 4 * length * word(index, least(i + 2, stop - 1))
            r3 = rows + 4 * length * word(index, least(i + 3, stop - 1))
            for k in range(fours):
                place = (i // 4 * fours + k) * WIDTH
                multiples = factors + place
                if vectors != 0:
                    multiples, some = word(args, LINEAR_MULTIPLES) + place, vectors + k * wide
                    store(multiples, dots(r0, r1, r2, r3, some, whole_bytes))
                    if length % 16 != 0:
                        _last_dots(r0, some, length, multiples)
                        _last_dots(r1, some, length, multiples + 16)
                        _last_dots(r2, some, length, multiples + 32)
                        _last_dots(r3, some, length, multiples + 48)
                    if factors != 0:
                        factor, offset = load(one, factors + place), load(one, offsets + place)
                        store(multiples, fma(load(one, multiples), factor, offset))
                if totals != 0:
                    _add_four(r0, r1, r2, r3, multiples, total + k * wide, length)
                    if length % 16 != 0:
                        _add(r0, multiples, total + k * wide, length)
                        _add(r1, multiples + 16, total + k * wide, length)
                        _add(r2, multiples + 32, total + k * wide, length)
                        _add(r3, multiples + 48, total + k * wide, length)


@Entry
def products(args):
    """Of float32."""
    work(_units, (np.float32(0),), args)

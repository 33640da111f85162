"""An instruction that pools a box by the paper's pyramid, for the loops of `sppnet.ops._simd`."""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

from functools import partial, reduce
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types

from sppnet.ops._keys import ordered
from sppnet.ops._shuffles import register_bytes
from sppnet.ops._simd import BYTES, Vector, at, instruction, larger

_WORD = ir.IntType(64)


def _word(builder, address, number: int):
    return builder.load(at(builder, address, _WORD, ir.Constant(_WORD, 8 * number)), align=8)


@instruction
def pool_paper_box(typingctx, like, tile, base, box):
    """`sppnet.ops._tiles.pool_box` for levels 6, 3, 2, 1, the default, where four places cover every bin.

    The smaller levels are made from bins that are still in registers. Keys, which are integers, those
    of `sppnet.ops._keys.to_ordered`, are written as the floats' bits.
    """
    kind, item, keyed = Vector(like), like.bitwidth // 8, isinstance(like, types.Integer)

    def codegen(context, builder, sig, args):
        _, tile, base, box = args
        size = register_bytes(context)
        register = ir.VectorType(kind.llvm.element, kind.lanes * size // BYTES)
        corner = builder.add(base, _word(builder, box, 0))
        columns, rows = _word(builder, box, 1), _word(builder, box, 2)
        largest = partial(reduce, partial(larger, builder))

        def read(row, column, offset: int):
            place = builder.add(builder.add(row, column), ir.Constant(_WORD, offset))
            return builder.load(at(builder, place, register), align=item)

        def write(number: int, offset: int, value):
            place = at(builder, tile, register, ir.Constant(_WORD, number * BYTES + offset))
            bits = ordered(context, builder, value) if keyed else value
            builder.store(bits, place, align=item)
            return value

        # Two rows at a time share the addresses of columns, of which the processor holds few.
        for offset in range(0, BYTES, size):
            halves: dict[tuple[int, int], Any] = {}
            for i in range(0, 6, 2):
                edges = [
                    [builder.add(corner, _word(builder, rows, 2 * (i + k) + side)) for side in (0, 1)]
                    for k in (0, 1)
                ]
                before = None
                for j in range(6):
                    sides = [_word(builder, columns, 2 * j + side) for side in (0, 1)]
                    both = []
                    for k in (0, 1):
                        some = [read(row, column, offset) for row, column in product(edges[k], sides)]
                        both.append(write(6 * (i + k) + j, offset, largest(some)))
                    two = largest(both)
                    for k, value in enumerate(both) if i == 2 else ((i // 4, two),):
                        known = halves.get((k, j // 3))
                        halves[k, j // 3] = value if known is None else largest([known, value])
                    if j % 2:
                        write(36 + i // 2 * 3 + j // 2, offset, largest([before, two]))
                    before = two
            twos = [write(45 + 2 * k + side, offset, halves[k, side]) for k, side in product((0, 1), (0, 1))]
            write(49, offset, largest(twos))
        return context.get_dummy_value()

    return types.none(like, *[types.int64] * 3), codegen

"""An instruction that pools a box by the paper's pyramid, for the loops of `sppnet.ops._simd`."""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

from functools import partial, reduce
from itertools import product

from llvmlite import ir
from numba import types

from sppnet.ops._shuffles import register_bytes
from sppnet.ops._simd import BYTES, Vector, at, instruction, larger

_WORD = ir.IntType(64)


def _word(builder, address, number: int):
    return builder.load(at(builder, address, _WORD, ir.Constant(_WORD, 8 * number)), align=8)


@instruction
def pool_paper_box(typingctx, like, tile, base, box):
    """`sppnet.ops._tiles.pool_box` for levels 6, 3, 2, 1, the default, where four places cover every bin.

    The smaller levels are made from bins that are still in registers.
    """
    kind = Vector(like)

    def codegen(context, builder, sig, args):
        _, tile, base, box = args
        size = register_bytes(context)
        register = ir.VectorType(kind.llvm.element, kind.lanes * size // BYTES)
        corner = builder.add(base, _word(builder, box, 0))
        columns, rows = _word(builder, box, 1), _word(builder, box, 2)
        largest = partial(reduce, partial(larger, builder))

        def read(row, column, offset: int):
            place = builder.add(builder.add(row, column), ir.Constant(_WORD, offset))
            return builder.load(at(builder, place, register), align=like.bitwidth // 8)

        def write(number: int, offset: int, value):
            place = at(builder, tile, register, ir.Constant(_WORD, number * BYTES + offset))
            builder.store(value, place, align=like.bitwidth // 8)
            return value

        for offset in range(0, BYTES, size):
            bins, threes, twos = {}, {}, []
            for i in range(6):
                edges = [builder.add(corner, _word(builder, rows, 2 * i + side)) for side in (0, 1)]
                for j in range(6):
                    sides = [_word(builder, columns, 2 * j + side) for side in (0, 1)]
                    some = [read(row, column, offset) for row, column in product(edges, sides)]
                    bins[i, j] = write(6 * i + j, offset, largest(some))
                for j in range(2):
                    threes[i, j] = largest([bins[i, 3 * j + k] for k in range(3)])
                if i % 2:
                    for j in range(3):
                        some = [bins[i - a, 2 * j + b] for a, b in product((0, 1), (0, 1))]
                        write(36 + i // 2 * 3 + j, offset, largest(some))
                if i % 3 == 2:
                    some = [largest([threes[i - a, j] for a in range(3)]) for j in range(2)]
                    twos += [write(45 + i // 3 * 2 + j, offset, value) for j, value in enumerate(some)]
            write(49, offset, largest(twos))
        return context.get_dummy_value()

    return types.none(like, *[types.int64] * 3), codegen

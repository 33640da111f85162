"""Instructions that pool a box by a fixed pyramid: that of the paper, or a coarse one.

They are equivalent to `sppnet.ops.cpu.kernels.tiles.pool_box` if four entries cover every bin. They require
fewer addresses, and smaller levels are derived from bins that are still in registers.
"""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types

from sppnet.ops.cpu.jit.keys import ordered
from sppnet.ops.cpu.jit.shuffles import register_bytes
from sppnet.ops.cpu.jit.simd import BYTES, Vector, at, instruction, larger

_WORD = ir.IntType(64)


def _word(builder, address, number: int):
    return builder.load(at(builder, address, _WORD, ir.Constant(_WORD, 8 * number)), align=8)


class _Box:
    """A box of a block, read and pooled in registers of ``size`` bytes.

    ``bits``, if given, converts compared values to the values that are written.
    """

    def __init__(self, builder, like, size: int, args, bits: Callable[[Any], Any] | None = None) -> None:
        self._builder, self._bits, self._item = builder, bits, like.bitwidth // 8
        self._register = ir.VectorType(Vector(like).llvm.element, size // self._item)
        _, self._tile, base, box = args
        self._corner = builder.add(base, _word(builder, box, 0))
        self._columns, self._rows = _word(builder, box, 1), _word(builder, box, 2)

    def edges(self, row: int) -> list:
        return [
            self._builder.add(self._corner, _word(self._builder, self._rows, 2 * row + k)) for k in (0, 1)
        ]

    def sides(self, column: int) -> list:
        return [_word(self._builder, self._columns, 2 * column + k) for k in (0, 1)]

    def largest(self, values: list):
        return reduce(partial(larger, self._builder), values)

    def read(self, edges: list, sides: list, offset: int):
        """Compute the maximum of the four entries of a bin."""
        build = self._builder
        places = [
            build.add(build.add(row, column), ir.Constant(_WORD, offset))
            for row, column in product(edges, sides)
        ]
        return self.largest(
            [build.load(at(build, place, self._register), align=self._item) for place in places]
        )

    def write(self, number: int, offset: int, value):
        """Write bin ``number`` of the tile and return its value before conversion."""
        place = at(self._builder, self._tile, self._register, ir.Constant(_WORD, number * BYTES + offset))
        self._builder.store(self._bits(value) if self._bits else value, place, align=self._item)
        return value


@instruction
def pool_paper_box(typingctx, like, tile, base, box):
    """Pool levels 6, 3, 2, 1, the default.

    Integers are keys of `sppnet.ops.cpu.jit.keys.to_ordered` and are written as bits of floats.
    """

    def codegen(context, builder, sig, args):
        size = register_bytes(context)
        bits = partial(ordered, context, builder) if isinstance(like, types.Integer) else None
        bins = _Box(builder, like, size, args, bits)
        # Two rows at a time share the addresses of columns, of which few fit into registers.
        for offset in range(0, BYTES, size):
            halves: dict[tuple[int, int], Any] = {}
            for i in range(0, 6, 2):
                edges, before = [bins.edges(i), bins.edges(i + 1)], None
                for j in range(6):
                    sides = bins.sides(j)
                    both = [
                        bins.write(6 * (i + k) + j, offset, bins.read(edges[k], sides, offset))
                        for k in (0, 1)
                    ]
                    two = bins.largest(both)
                    for k, value in enumerate(both) if i == 2 else ((i // 4, two),):
                        known = halves.get((k, j // 3))
                        halves[k, j // 3] = value if known is None else bins.largest([known, value])
                    if j % 2:
                        bins.write(36 + i // 2 * 3 + j // 2, offset, bins.largest([before, two]))
                    before = two
            quarters = [halves[half] for half in product((0, 1), (0, 1))]
            for number, value in enumerate(quarters, 45):
                bins.write(number, offset, value)
            bins.write(49, offset, bins.largest(quarters))
        return context.get_dummy_value()

    return types.none(like, *[types.int64] * 3), codegen


@instruction
def pool_coarse_box(typingctx, like, tile, base, box):
    """Pool levels 3, 2, 1, of which only the last is derived from another."""

    def codegen(context, builder, sig, args):
        size = register_bytes(context)
        bins = _Box(builder, like, size, args)
        offsets = range(0, BYTES, size)
        quarters: dict[int, list] = {offset: [] for offset in offsets}
        for n, before, edge in ((3, 0, 0), (2, 9, 3)):
            for i in range(n):
                edges = bins.edges(edge + i)
                for j in range(n):
                    sides = bins.sides(edge + j)
                    for offset in offsets:
                        value = bins.write(before + n * i + j, offset, bins.read(edges, sides, offset))
                        if n == 2:
                            quarters[offset].append(value)
        for offset in offsets:
            bins.write(13, offset, bins.largest(quarters[offset]))
        return context.get_dummy_value()

    return types.none(like, *[types.int64] * 3), codegen

"""Vectors of 64 bytes for compiled loops: a numba type, and the instructions for pooling.

A vector has 64 bytes of one element type, such as 16 float32, on every processor: the compiler splits it if
registers are narrower. Memory is given by integer addresses: callers are responsible for their range. The
first argument ``like`` of most functions is a scalar of the element type.
"""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from sppnet.ops.cpu.jit.inline import cgutils

BYTES = 64

_ITEMS = {
    types.int16: ir.IntType(16),
    types.int32: ir.IntType(32),
    types.int64: ir.IntType(64),
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
}


def instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Define a function of compiled code that becomes LLVM instructions."""
    return intrinsic(function)


def literal_instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Define an `instruction` with integer arguments that are literals."""
    return intrinsic(prefer_literal=True)(function)


class Vector(types.Type):
    """64 bytes of one element type."""

    def __init__(self, item) -> None:
        super().__init__(name=f"Vector({item})")
        self.item = item
        self.lanes = BYTES * 8 // item.bitwidth
        self.llvm = ir.VectorType(_ITEMS[item], self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


def splat(vector: ir.VectorType, value) -> ir.Constant:
    """Return a constant vector of one value."""
    return ir.Constant(vector, [value] * vector.count)


def broadcast(builder, vector: ir.VectorType, scalar):
    """Return a vector of which every lane is ``scalar``."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, first, zeros)


def shuffle(builder, a, b, lanes: list[int]):
    """Select lanes of two vectors, with consecutive numbers."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def at(builder, address, kind, offset=None):
    """Return a pointer to ``kind`` at an integer address."""
    if offset is not None:
        address = builder.add(address, offset)
    return builder.inttoptr(address, kind.as_pointer())


@instruction
def lanes(typingctx, like):
    """Return the number of elements of the type of ``like`` in a vector."""
    count = Vector(like).lanes
    return types.int64(like), lambda context, builder, sig, args: ir.Constant(ir.IntType(64), count)


@instruction
def peek(typingctx, like, address):
    """Return the scalar of the type of ``like`` at ``address``."""

    def codegen(context, builder, sig, args):
        item = _ITEMS[sig.args[0]]
        return builder.load(at(builder, args[1], item), align=item_bytes)

    item_bytes = like.bitwidth // 8
    return like(like, types.int64), codegen


@instruction
def word(typingctx, address, index):
    """Return element ``index`` of the int64 at ``address``.

    Tables are passed by address because numba counts references to arrays with locked instructions, which
    wait until all streamed values are in memory.
    """

    def codegen(context, builder, sig, args):
        pointer = builder.add(args[0], builder.shl(args[1], ir.Constant(ir.IntType(64), 3)))
        return builder.load(at(builder, pointer, ir.IntType(64)), align=8)

    return types.int64(types.int64, types.int64), codegen


@instruction
def least(typingctx, a, b):
    """Return the smaller of two int64; Python's ``min`` takes longer to compile."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.icmp_signed("<", *args), *args)

    return types.int64(types.int64, types.int64), codegen


@instruction
def greatest(typingctx, a, b):
    """Return the larger of two int64."""
    return types.int64(types.int64, types.int64), lambda context, builder, sig, args: larger(builder, *args)


@instruction
def take(typingctx, address, count):
    """Add ``count`` to the int64 at ``address`` atomically and return its previous value."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", at(builder, args[0], ir.IntType(64)), args[1], "monotonic")

    return types.int64(types.int64, types.int64), codegen


@instruction
def poke(typingctx, address, value):
    """Write a scalar to ``address``."""
    item_bytes = value.bitwidth // 8

    def codegen(context, builder, sig, args):
        builder.store(args[1], at(builder, args[0], _ITEMS[sig.args[1]]), align=item_bytes)
        return context.get_dummy_value()

    return types.none(types.int64, value), codegen


@instruction
def load(typingctx, like, address):
    """Return the vector at ``address``, which must be aligned to an element."""
    result = Vector(like)

    def codegen(context, builder, sig, args):
        return builder.load(at(builder, args[1], result.llvm), align=like.bitwidth // 8)

    return result(like, types.int64), codegen


@instruction
def store(typingctx, address, vector):
    """Write ``vector`` to ``address``, which must be aligned to an element."""

    def codegen(context, builder, sig, args):
        builder.store(args[1], at(builder, args[0], vector.llvm), align=vector.item.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(types.int64, vector), codegen


@instruction
def store_half(typingctx, address, vector):
    """Write the lower half of each integer of ``vector`` contiguously to ``address``."""
    half = ir.VectorType(ir.IntType(vector.item.bitwidth // 2), vector.lanes)

    def codegen(context, builder, sig, args):
        value = builder.trunc(args[1], half)
        builder.store(value, at(builder, args[0], half), align=vector.item.bitwidth // 16)
        return context.get_dummy_value()

    return types.none(types.int64, vector), codegen


def write_past(builder, vector, pointer, align: int = BYTES) -> None:
    """Write a vector past the caches."""
    written = builder.store(vector, pointer, align=align)
    written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


@instruction
def stream(typingctx, address, vector):
    """Write ``vector`` past the caches to ``address``, a multiple of 64; `fence` before others read it."""

    def codegen(context, builder, sig, args):
        write_past(builder, args[1], at(builder, args[0], vector.llvm))
        return context.get_dummy_value()

    return types.none(types.int64, vector), codegen


@instruction
def fence(typingctx):
    """Complete all earlier writes, including streams, before later ones."""

    def codegen(context, builder, sig, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), codegen


@instruction
def prefetch(typingctx, address):
    """Prefetch the cache line at ``address``, which may be invalid."""

    def codegen(context, builder, sig, args):
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        hints = [ir.Constant(number, value) for value in (0, 3, 1)]
        builder.call(function, [at(builder, args[0], ir.IntType(8)), *hints])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@instruction
def zero(typingctx, like):
    """Return a vector of zeros."""
    result = Vector(like)
    return result(like), lambda context, builder, sig, args: ir.Constant(result.llvm, None)


def larger(builder, a, b):
    """Return the larger of two scalars, or of each pair of lanes."""
    item = getattr(a.type, "element", a.type)
    above = builder.icmp_signed if isinstance(item, ir.IntType) else builder.fcmp_ordered
    return builder.select(above(">", a, b), a, b)


@instruction
def vmax(typingctx, a, b):
    """Return the larger of each pair; floats must not be NaN."""
    return a(a, b), lambda context, builder, sig, args: larger(builder, *args)


def _largest(builder, like, addresses: list):
    kind = Vector(like).llvm
    vectors = [builder.load(at(builder, one, kind), align=like.bitwidth // 8) for one in addresses]
    return reduce(partial(larger, builder), vectors)


@instruction
def corners(typingctx, like, top, bottom, left, right):
    """Compute the maximum of four vectors at ``top`` or ``bottom`` plus ``left`` or ``right``."""

    def codegen(context, builder, sig, args):
        _, top, bottom, left, right = args
        places = [builder.add(row, column) for row in (top, bottom) for column in (left, right)]
        return _largest(builder, like, places)

    return Vector(like)(like, *[types.int64] * 4), codegen


@literal_instruction
def square(typingctx, like, count, start, line):
    """Compute the maximum of ``count`` x ``count`` vectors, in lines at a distance of ``line`` bytes."""
    if not isinstance(count, types.IntegerLiteral):
        return None

    def codegen(context, builder, sig, args):
        word, side = ir.IntType(64), range(count.literal_value)
        lines = [builder.add(args[2], builder.mul(args[3], ir.Constant(word, i))) for i in side]
        places = [builder.add(one, ir.Constant(word, BYTES * j)) for one in lines for j in side]
        return _largest(builder, like, places)

    return Vector(like)(like, count, types.int64, types.int64), codegen


@instruction
def largest(typingctx, vector):
    """Return the largest integer of a vector, as int64."""

    def codegen(context, builder, sig, args):
        kind, item = vector.llvm, vector.llvm.element
        name = f"llvm.vector.reduce.smax.v{vector.lanes}i{item.width}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(item, [kind]), name)
        value = builder.call(function, args)
        return builder.sext(value, ir.IntType(64)) if item.width < 64 else value

    return types.int64(vector), codegen


@instruction
def fill(typingctx, like, value):
    """Return a vector of which every lane is ``value``."""
    result = Vector(like)

    def codegen(context, builder, sig, args):
        value = args[1]
        if like.bitwidth < 64:
            value = builder.trunc(value, result.llvm.element)
        return broadcast(builder, result.llvm, value)

    return result(like, types.int64), codegen


@instruction
def repeat(typingctx, value):
    """Return a vector of which every lane is the scalar ``value``, of its type."""
    result = Vector(value)
    return result(value), lambda context, builder, sig, args: broadcast(builder, result.llvm, args[0])


def _compare(builder, sign: str, a, b):
    integers = isinstance(a.type.element, ir.IntType)
    return (builder.icmp_signed if integers else builder.fcmp_ordered)(sign, a, b)


@instruction
def where_above(typingctx, a, b, x, y):
    """Select ``x`` in lanes where ``a > b``, otherwise ``y``."""

    def codegen(context, builder, sig, args):
        a, b, x, y = args
        return builder.select(_compare(builder, ">", a, b), x, y)

    return x(a, a, x, x), codegen


@instruction
def where_first(typingctx, a, x, b, y):
    """Select in each lane the index ``x`` or ``y`` of the larger of ``a`` and ``b``; the smaller if equal."""

    def codegen(context, builder, sig, args):
        a, x, b, y = args
        # A second selection instead of a combined condition, which is slower with AVX2.
        first = builder.select(builder.icmp_signed("<", x, y), x, y)
        first = builder.select(_compare(builder, "==", a, b), first, y)
        return builder.select(_compare(builder, ">", a, b), x, first)

    return x(a, x, a, x), codegen


@instruction
def vadd(typingctx, a, b):
    """Compute the sum of each pair."""

    def codegen(context, builder, sig, args):
        add = builder.add if isinstance(a.item, types.Integer) else builder.fadd
        return add(args[0], args[1])

    return a(a, b), codegen


@instruction
def scaled(typingctx, a, factor):
    """Multiply each float by a scalar."""

    def codegen(context, builder, sig, args):
        return builder.fmul(args[0], broadcast(builder, a.llvm, args[1]))

    return a(a, a.item), codegen


@instruction
def fma(typingctx, a, b, c):
    """Compute ``a * b + c``, fused if the processor supports it."""

    def codegen(context, builder, sig, args):
        name = f"llvm.fmuladd.v{a.lanes}f{a.item.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.llvm, [a.llvm] * 3), name)
        return builder.call(function, args)

    return a(a, b, c), codegen

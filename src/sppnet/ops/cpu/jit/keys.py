"""Vector instructions for keys: integers in the order of floats, with the cell in the lower bits."""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

from llvmlite import ir
from numba import types

from sppnet.ops.cpu.jit.inline import cgutils, has
from sppnet.ops.cpu.jit.simd import Vector, broadcast, instruction, shuffle, splat


def fold(builder, vector):
    """Flip all bits but the sign of negative values: convert bits of floats to ordered integers, and back."""
    kind = vector.type
    sign = builder.ashr(vector, splat(kind, kind.element.width - 1))
    return builder.xor(vector, builder.and_(sign, splat(kind, (1 << (kind.element.width - 1)) - 1)))


def ordered(context, builder, vector):
    """Convert bits of floats without NaN to ordered integers, and back.

    This is `fold`, except for 16 bits on processors with AVX2 and without AVX-512, where it takes two steps
    instead of three and maps both zeros to 0.
    """
    kind = vector.type
    if kind.element.width != 16 or not has(context, "avx2") or has(context, "avx512bw"):
        return fold(builder, vector)
    # Conversion of sign and magnitude to two's complement is its own inverse. The instruction negates below
    # zero.
    low = builder.and_(vector, splat(kind, (1 << 15) - 1))
    count, name = (16, "avx2.psign.w") if kind.count >= 16 else (8, "ssse3.psign.w.128")
    part = ir.VectorType(kind.element, count)
    function = ir.FunctionType(part, [part, part])
    negate = cgutils.get_or_insert_function(builder.module, function, f"llvm.x86.{name}")
    runs = [list(range(start, start + count)) for start in range(0, kind.count, count)]
    parts = [builder.call(negate, [shuffle(builder, x, x, run) for x in (low, vector)]) for run in runs]
    return parts[0] if len(parts) == 1 else shuffle(builder, parts[0], parts[1], list(range(2 * count)))


@instruction
def to_ordered(typingctx, vector):
    """Convert bits of floats without NaN to ordered integers, and back; zeros may lose their sign."""

    def codegen(context, builder, sig, args):
        return ordered(context, builder, args[0])

    return vector(vector), codegen


@instruction
def to_key(typingctx, vector, turn):
    """Convert bits of floats to integers in the order of the floats, with every NaN as the largest.

    ``turn`` is the number of NaNs of either sign: its subtraction, with wrap-around, moves the negative NaNs
    from the bottom to the top.
    """

    def codegen(context, builder, sig, args):
        return builder.sub(fold(builder, args[0]), broadcast(builder, vector.llvm, args[1]))

    return vector(vector, vector.item), codegen


@instruction
def from_key(typingctx, vector, turn):
    """Compute the inverse of `to_key`; floats, which are compared without conversion, are unchanged."""

    def codegen(context, builder, sig, args):
        if not isinstance(vector.item, types.Integer):
            return args[0]
        turned = builder.add(args[0], broadcast(builder, vector.llvm, args[1]))
        return fold(builder, turned)

    return vector(vector, vector.item), codegen


@instruction
def to_plain_key(typingctx, value, vector, turn):
    """Convert as `to_key`, but with one key for both zeros and the largest key for every NaN.

    If ``value`` is not an integer, floats are compared without conversion and the bits are unchanged.
    """

    def codegen(context, builder, sig, args):
        _, bits, turn = args
        if not isinstance(value, types.Integer):
            return bits
        kind = vector.llvm
        most = splat(kind, (1 << (vector.item.bitwidth - 1)) - 1)
        key = fold(builder, bits)
        key = builder.select(builder.icmp_signed("==", key, splat(kind, -1)), ir.Constant(kind, None), key)
        infinity = builder.sub(most, broadcast(builder, kind, turn))
        odd = builder.icmp_signed(">", builder.and_(bits, most), infinity)
        return builder.select(odd, most, key)

    return vector(value, vector, vector.item), codegen


@instruction
def with_cell(typingctx, like, keys, part, cell):
    """Combine part ``part`` of the lanes of ``keys`` with ``cell`` as the lower half of wider integers."""
    result = Vector(like)
    shift = like.bitwidth // 2

    def codegen(context, builder, sig, args):
        _, all_keys, number, low = args
        some = shuffle(builder, all_keys, all_keys, list(range(result.lanes)))
        for i in range(1, keys.lanes // result.lanes):
            other = shuffle(
                builder, all_keys, all_keys, list(range(i * result.lanes, (i + 1) * result.lanes))
            )
            here = builder.icmp_signed("==", number, ir.Constant(number.type, i))
            some = builder.select(here, other, some)
        high = builder.shl(builder.sext(some, result.llvm), splat(result.llvm, shift))
        if like.bitwidth < 64:
            low = builder.trunc(low, result.llvm.element)
        return builder.or_(high, broadcast(builder, result.llvm, low))

    return result(like, keys, types.int64, types.int64), codegen


@instruction
def to_cell(typingctx, vector, low):
    """Extract the lower half of each lane, as set by `with_cell`, counted down from ``low``."""

    def codegen(context, builder, sig, args):
        kind, low = vector.llvm, args[1]
        if vector.item.bitwidth < 64:
            low = builder.trunc(low, kind.element)
        mask = broadcast(builder, kind, low)
        return builder.sub(mask, builder.and_(args[0], mask))

    return vector(vector, types.int64), codegen


@instruction
def magnitude(typingctx, vector):
    """Clear the sign bits of floats."""

    def codegen(context, builder, sig, args):
        return builder.and_(args[0], splat(vector.llvm, (1 << (vector.item.bitwidth - 1)) - 1))

    return vector(vector), codegen

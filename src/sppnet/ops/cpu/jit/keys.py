"""Vector instructions for keys: floats as integers of the same order, with the cell beside them."""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

from llvmlite import ir
from numba import types

from sppnet.ops.cpu.jit.inline import cgutils, has
from sppnet.ops.cpu.jit.simd import Vector, broadcast, instruction, shuffle, splat


def fold(builder, vector):
    """Flip all but the sign of the negative ones: floats' bits to integers of the same order, and back."""
    kind = vector.type
    sign = builder.ashr(vector, splat(kind, kind.element.width - 1))
    return builder.xor(vector, builder.and_(sign, splat(kind, (1 << (kind.element.width - 1)) - 1)))


def ordered(context, builder, vector):
    """Bits of floats, none of them NaN, to integers of the same order, and back.

    As `fold` does, but 16 bits on processors with AVX2 and no AVX-512 in two steps instead of three: there
    both zeros become 0.
    """
    kind = vector.type
    if kind.element.width != 16 or not has(context, "avx2") or has(context, "avx512bw"):
        return fold(builder, vector)
    # Sign and magnitude to two's complement is the way back, too. The instruction negates below zero.
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
    """Bits of floats, none of them NaN, to integers of the same order, and back; of zeros the sign may go."""

    def codegen(context, builder, sig, args):
        return ordered(context, builder, args[0])

    return vector(vector), codegen


@instruction
def to_key(typingctx, vector, turn):
    """Bits of floats to integers that order as the floats do, every NaN above all.

    ``turn`` is the number of NaNs of either sign: subtracting it, with wrap-around, moves the negative ones
    from the bottom to the top.
    """

    def codegen(context, builder, sig, args):
        return builder.sub(fold(builder, args[0]), broadcast(builder, vector.llvm, args[1]))

    return vector(vector, vector.item), codegen


@instruction
def from_key(typingctx, vector, turn):
    """The inverse of `to_key`; floats, which were compared as they are, stay so."""

    def codegen(context, builder, sig, args):
        if not isinstance(vector.item, types.Integer):
            return args[0]
        turned = builder.add(args[0], broadcast(builder, vector.llvm, args[1]))
        return fold(builder, turned)

    return vector(vector, vector.item), codegen


@instruction
def to_plain_key(typingctx, value, vector, turn):
    """As `to_key`, but with one key for both zeros and one, the largest, for every NaN.

    Only where ``value`` is an integer: bits of floats that are compared as they are stay so.
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
    """Part ``part`` of the lanes of ``keys``, each above ``cell`` in an integer of the type of ``like``."""
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
    """What `with_cell` put into the lower half of each lane, counted down from ``low``."""

    def codegen(context, builder, sig, args):
        kind, low = vector.llvm, args[1]
        if vector.item.bitwidth < 64:
            low = builder.trunc(low, kind.element)
        mask = broadcast(builder, kind, low)
        return builder.sub(mask, builder.and_(args[0], mask))

    return vector(vector, types.int64), codegen


@instruction
def magnitude(typingctx, vector):
    """Bits of floats without their signs."""

    def codegen(context, builder, sig, args):
        return builder.and_(args[0], splat(vector.llvm, (1 << (vector.item.bitwidth - 1)) - 1))

    return vector(vector), codegen

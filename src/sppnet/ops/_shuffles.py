"""Vectors of `sppnet.ops._simd` turned, widened, narrowed and summed: instructions that move lanes."""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from sppnet.ops._simd import (
    BYTES,
    Vector,
    at,
    instruction,
    literal_instruction,
    shuffle,
    splat,
    unkeyed,
    write_past,
)


def _zip_words(builder, vectors: list, lanes_: int) -> list:
    """Interleave vectors of 4 or 8 byte words until each lane's elements lie side by side."""
    low = [j // 2 + (j % 2) * lanes_ for j in range(lanes_)]
    high = [lane + lanes_ // 2 for lane in low]
    half = len(vectors) // 2
    for _ in range(len(vectors).bit_length() - 1):
        pairs = [(vectors[i], vectors[i + half]) for i in range(half)]
        vectors = [shuffle(builder, a, b, mask) for a, b in pairs for mask in (low, high)]
    return vectors


def _zip(builder, kind: Vector, vectors: list) -> list:
    """Interleave vectors, their number a power of two, of at most the lanes.

    Returns for each lane where its elements are, side by side: a vector, and the first one's lane there.
    """
    rows = len(vectors)
    if rows == 1:
        return [(vectors[0], lane) for lane in range(kind.lanes)]
    share = kind.lanes // rows
    if kind.item.bitwidth > 16:
        zipped = _zip_words(builder, vectors, kind.lanes)
        return [(zipped[lane // share], lane % share * rows) for lane in range(kind.lanes)]
    # 2-byte shuffles across 16 bytes are slow: pair neighbours inside them, then move pairs as words.
    words = ir.VectorType(ir.IntType(32), kind.lanes // 2)
    result = [None] * kind.lanes
    for side in (0, 4):
        mask = [8 * (j // 8) + side + (j % 8) // 2 + (j % 2) * kind.lanes for j in range(kind.lanes)]
        pairs = [shuffle(builder, vectors[i], vectors[i + 1], mask) for i in range(0, rows, 2)]
        zipped = _zip_words(builder, [builder.bitcast(p, words) for p in pairs], words.count)
        for i, vector in enumerate(zipped):
            whole = builder.bitcast(vector, kind.llvm)
            for part in range(share):
                word = i * share + part
                result[8 * (word // 4) + side + word % 4] = whole, part * rows
    return result


def _columns(builder, kind: Vector, vectors: list) -> list:
    """For each lane a short vector of its elements in ``vectors``, whose number is a power of two."""
    rows = len(vectors)
    return [
        shuffle(builder, vector, vector, list(range(first, first + rows)))
        for vector, first in _zip(builder, kind, vectors)
    ]


def _transpose(builder, kind: Vector, rows: int, places) -> None:
    source, source_step, target, target_step = places
    align, word = kind.item.bitwidth // 8, ir.IntType(64)
    vectors = []
    for i in range(rows):
        offset = builder.mul(source_step, ir.Constant(word, i))
        vectors.append(builder.load(at(builder, source, kind.llvm, offset), align=align))
    piece = ir.VectorType(kind.llvm.element, rows)
    for lane, column in enumerate(_columns(builder, kind, vectors)):
        offset = builder.mul(target_step, ir.Constant(word, lane))
        builder.store(column, at(builder, target, piece, offset), align=align)


@literal_instruction
def transpose(typingctx, like, count, source, source_step, target, target_step):
    """Turn ``count`` vectors into as many columns.

    Reads vectors at ``source + i * source_step`` and writes, for each lane, ``count`` elements side by
    side at ``target + lane * target_step``. ``count`` is a literal power of two, at most the lanes.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    kind = Vector(like)

    def codegen(context, builder, sig, args):
        _transpose(builder, kind, min(count.literal_value, kind.lanes), args[2:])
        return context.get_dummy_value()

    return types.none(like, count, *[types.int64] * 4), codegen


def _picked(builder, kind: Vector, wanted: list) -> Any:
    """A vector of the ``wanted`` elements, each a vector and a lane of it."""
    sources = list({id(vector): vector for vector, _ in wanted}.values())
    total, lanes = sources[0], [lane for _, lane in wanted]
    if len(sources) == 1:
        return total if lanes == list(range(kind.lanes)) else shuffle(builder, total, total, lanes)
    done = [lane if vector is total else 0 for vector, lane in wanted]
    for source in sources[1:]:
        mask = [
            kind.lanes + lane if vector is source else old
            for (vector, lane), old in zip(wanted, done, strict=True)
        ]
        total, done = shuffle(builder, total, source, mask), list(range(kind.lanes))
    return total


def _lines(builder, kind: Vector, vectors: list) -> list:
    """As many vectors, in which the elements of each lane of ``vectors`` follow one another."""
    count, first, places = len(vectors), 0, {}
    while first < count:
        run = min(kind.lanes, 1 << (count - first).bit_length() - 1)
        for lane, (vector, begin) in enumerate(_zip(builder, kind, vectors[first : first + run])):
            for row in range(run):
                places[lane * count + first + row] = vector, begin + row
        first += run
    starts = range(0, count * kind.lanes, kind.lanes)
    return [_picked(builder, kind, [places[start + i] for i in range(kind.lanes)]) for start in starts]


@literal_instruction
def stream_turned(typingctx, like, count, source, target, turn):
    """Turn ``count`` vectors of keys into columns of floats' bits, side by side, past the caches.

    Reads vectors at ``source`` and writes as many at ``target``, a multiple of 64: for each lane the
    elements of all vectors. ``count`` is a literal.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    kind = Vector(like)

    def codegen(context, builder, sig, args):
        steps = [ir.Constant(ir.IntType(64), BYTES * i) for i in range(count.literal_value)]
        align = kind.item.bitwidth // 8
        keys = [builder.load(at(builder, args[2], kind.llvm, step), align=align) for step in steps]
        vectors = [unkeyed(builder, kind, key, args[4]) for key in keys]
        for step, line in zip(steps, _lines(builder, kind, vectors), strict=True):
            write_past(builder, line, at(builder, args[3], kind.llvm, step))
        return context.get_dummy_value()

    return types.none(like, count, types.int64, types.int64, like), codegen


@instruction
def widen(typingctx, vector, part):
    """Half of a vector of float32, the first where ``part`` is 0, as float64; float64 as it is."""
    kind, double = vector, Vector(types.float64)

    def codegen(context, builder, sig, args):
        if kind.item == types.float64:
            return args[0]
        low = shuffle(builder, args[0], args[0], list(range(8)))
        high = shuffle(builder, args[0], args[0], list(range(8, 16)))
        first = builder.icmp_signed("==", args[1], ir.Constant(args[1].type, 0))
        return builder.fpext(builder.select(first, low, high), double.llvm)

    return double(vector, types.int64), codegen


@instruction
def narrow(typingctx, like, low, high):
    """The inverse of `widen`: two halves as float32, or the first as it is for float64."""
    result = Vector(like)

    def codegen(context, builder, sig, args):
        if like == types.float64:
            return args[1]
        short = ir.VectorType(ir.FloatType(), 8)
        low, high = (builder.fptrunc(half, short) for half in args[1:])
        return shuffle(builder, low, high, list(range(16)))

    return result(like, low, high), codegen


@instruction
def floats(typingctx, vector, part, half):
    """Bits of floats as float32.

    Of int16 the lanes of half ``part``, as float16 where ``half``, else bfloat16; of int32 all lanes.
    """
    result = Vector(types.float32)

    def codegen(context, builder, sig, args):
        if vector.item == types.int32:
            return builder.bitcast(args[0], result.llvm)
        low = shuffle(builder, args[0], args[0], list(range(16)))
        high = shuffle(builder, args[0], args[0], list(range(16, 32)))
        some = builder.select(builder.icmp_signed("==", args[1], ir.Constant(args[1].type, 0)), low, high)
        words = ir.VectorType(ir.IntType(32), 16)
        shifted = builder.shl(builder.zext(some, words), splat(words, 16))
        brain = builder.bitcast(shifted, result.llvm)
        short = builder.bitcast(some, ir.VectorType(ir.HalfType(), 16))
        return builder.select(args[2], builder.fpext(short, result.llvm), brain)

    return result(vector, types.int64, types.boolean), codegen


@instruction
def sums(typingctx, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p):  # noqa: E741
    """The sums of the lanes of 16 vectors of float32, one a lane."""
    result = Vector(types.float32)

    def codegen(context, builder, sig, args):
        # Lane i of what is left holds a part of the sum of vector names[i].
        left = [(args[i], [i] * 16) for i in range(16)]
        run = 16
        while len(left) > 1:
            run //= 2
            merged = []
            for (a, names_a), (b, names_b) in zip(left[::2], left[1::2], strict=True):
                starts = range(0, 16, 2 * run)
                low = [s + base + i for s in starts for base in (0, 16) for i in range(run)]
                high = [lane + run for lane in low]
                both = builder.fadd(shuffle(builder, a, b, low), shuffle(builder, a, b, high))
                merged.append((both, [(names_a + names_b)[lane] for lane in low]))
            left = merged
        total, names = left[0]
        return shuffle(builder, total, total, [names.index(i) for i in range(16)])

    return result(*[result] * 16), codegen

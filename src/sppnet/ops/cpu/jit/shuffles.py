"""Instructions that move lanes: transposing, widening and narrowing vectors."""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types

from sppnet.ops.cpu.jit.inline import cgutils, has
from sppnet.ops.cpu.jit.simd import (
    BYTES,
    Vector,
    at,
    instruction,
    literal_instruction,
    shuffle,
    splat,
    write_past,
)

_LANE = 16
"""Bytes within which AVX2 moves elements in one step."""


def register_bytes(context) -> int:
    """Return the bytes of registers for shuffles; the compiler splits wider ones inefficiently."""
    return BYTES if has(context, "avx512bw") else 32 if has(context, "avx2") else _LANE


def _bytes(kind) -> int:
    """Return the bytes of an element of a vector."""
    return {"float": 4, "double": 8}.get(str(kind.element)) or kind.element.width // 8


def _most(kind) -> int:
    """Return the maximum number of vectors for `_zip`."""
    return kind.count if kind.count * _bytes(kind) == BYTES else _LANE // _bytes(kind)


def _zip_runs(builder, vectors: list, run: int) -> list:
    """Interleave vectors within each run of lanes, until the elements of each lane are contiguous."""
    count = vectors[0].type.count
    low = [start + j // 2 + (j % 2) * count for start in range(0, count, run) for j in range(run)]
    high = [lane + run // 2 for lane in low]
    half = len(vectors) // 2
    for _ in range(len(vectors).bit_length() - 1):
        pairs = [(vectors[i], vectors[i + half]) for i in range(half)]
        vectors = [shuffle(builder, a, b, mask) for a, b in pairs for mask in (low, high)]
    return vectors


def _zip(builder, vectors: list) -> list:
    """Interleave vectors, whose number is a power of two and at most `_most`.

    Returns for each lane the vector with its contiguous elements and the lane of the first one.
    """
    rows, kind = len(vectors), vectors[0].type
    if rows == 1:
        return [(vectors[0], lane) for lane in range(kind.count)]
    run = _most(kind)
    share = run // rows
    if run < kind.count or _bytes(kind) > 2:
        zipped = _zip_runs(builder, vectors, run)
        return [
            (zipped[lane % run // share], lane // run * run + lane % share * rows)
            for lane in range(kind.count)
        ]
    # 2-byte shuffles across 16 bytes are slow, so neighbours are paired inside them and moved as 4-byte
    # words.
    words = ir.VectorType(ir.IntType(32), kind.count // 2)
    result = [None] * kind.count
    for side in (0, 4):
        mask = [8 * (j // 8) + side + (j % 8) // 2 + (j % 2) * kind.count for j in range(kind.count)]
        pairs = [shuffle(builder, vectors[i], vectors[i + 1], mask) for i in range(0, rows, 2)]
        zipped = _zip_runs(builder, [builder.bitcast(p, words) for p in pairs], words.count)
        for i, vector in enumerate(zipped):
            whole = builder.bitcast(vector, kind)
            for part in range(share):
                word = i * share + part
                result[8 * (word // 4) + side + word % 4] = whole, part * rows
    return result


def _columns(builder, vectors: list) -> list:
    """Return for each lane the locations of its elements, as vectors and lanes."""
    columns, first = [[] for _ in range(vectors[0].type.count)], 0
    while first < len(vectors):
        run = min(_most(vectors[0].type), 1 << (len(vectors) - first).bit_length() - 1)
        for column, (vector, begin) in zip(columns, _zip(builder, vectors[first : first + run]), strict=True):
            column += [(vector, begin + row) for row in range(run)]
        first += run
    return columns


def _pieces(builder, read: Callable[[], list], lanes: range) -> Iterator:
    """Yield the elements of ``lanes`` of every 16 bytes, lane by lane, packed into vectors.

    ``read`` returns the vectors, narrower than `BYTES`; their number is a multiple of 4.
    """
    vectors, known = read(), {}
    kind, count, run = vectors[0].type, len(vectors), _LANE // _bytes(vectors[0].type)

    def joined(first, second, places: list[tuple[int, int]], size: int):
        key = id(first), id(second), *places
        if key not in known:
            mask = []
            for start in range(0, kind.count, run):
                for left, right in places:
                    mask += range(start + left * size, start + left * size + size)
                    mask += range(kind.count + start + right * size, kind.count + start + right * size + size)
            known[key] = shuffle(builder, first, second, mask)
        return known[key]

    def join(a, b, size: int):
        """Concatenate two pieces of ``size`` elements, given as vectors and positions in every 16 bytes."""
        (first, i), (second, j), half = a, b, run // size // 2
        if i != j:
            return joined(first, second, [(i, j)] * half, size), 0
        low, high = ([(k, k) for k in range(begin, begin + half)] for begin in (0, half))
        if size > 1:
            # The result of the other half is computed now, which frees registers.
            joined(first, second, high if i < half else low, size)
        return joined(first, second, low if i < half else high, size), i % half

    def piece(first: int, size: int):
        if size == 1:
            return vectors[first % count], first // count
        return join(piece(first, size // 2), piece(first + size // 2, size // 2), size // 2)

    return (piece(first, run)[0] for first in range(lanes.start * count, lanes.stop * count, run))


def _lines(builder, kind, count: int, read: Callable[[], list]) -> Iterator[tuple[int, Any]]:
    """Yield the elements of ``count`` vectors of type ``kind``, which ``read`` returns, lane by lane.

    Yields index and content of each register that they fill.
    """
    if count % 4 or kind.count * _bytes(kind) == BYTES:
        elements = [element for column in _columns(builder, read()) for element in column]
        for number in range(count):
            first = number * kind.count
            yield number, _picked(builder, elements[first : first + kind.count])
        return
    run = _LANE // _bytes(kind)
    groups, most = kind.count // run, max(1, run // 2)
    # A few lanes at a time, read again, because the processor has 16 registers.
    for start in range(0, run, most):
        pieces = _pieces(builder, read, range(start, start + most))
        for line in range(start * count // kind.count, (start + most) * count // kind.count):
            some = [next(pieces) for _ in range(groups)]
            for group in range(groups):
                elements = [(one, group * run + lane) for one in some for lane in range(run)]
                yield group * count // groups + line, _picked(builder, elements)


def _picked(builder, elements: list) -> Any:
    """Return a vector of elements, given as vectors and lanes."""
    sources = list({id(vector): vector for vector, _ in elements}.values())
    total, lanes = sources[0], [lane for _, lane in elements]
    if len(sources) == 1:
        same = lanes == list(range(total.type.count))
        return total if same else shuffle(builder, total, total, lanes)
    width = total.type.count
    done = [lane if vector is total else 0 for vector, lane in elements]
    for source in sources[1:]:
        mask = [
            width + lane if vector is source else old
            for (vector, lane), old in zip(elements, done, strict=True)
        ]
        total, done = shuffle(builder, total, source, mask), list(range(width))
    return total


def _read(builder, kind: Vector, size: int, source, step, rows: range) -> list:
    """Read ``size`` bytes of each of several vectors at a distance of ``step``."""
    item, word = kind.item.bitwidth // 8, ir.IntType(64)
    register = ir.VectorType(kind.llvm.element, size // item)
    steps = [builder.mul(step, ir.Constant(word, row)) for row in rows]
    return [builder.load(at(builder, source, register, step), align=item) for step in steps]


def _transpose(builder, kind: Vector, size: int, rows: int, places) -> None:
    source, source_step, target, target_step = places
    item, word = kind.item.bitwidth // 8, ir.IntType(64)
    lanes = size // item
    some, place = min(rows, lanes), ir.Constant(word, size)
    # Loops, which run once if a register has the size of a vector, reduce the amount of code.
    with cgutils.for_range(builder, ir.Constant(word, BYTES // size)) as parts:
        part = builder.add(source, builder.mul(parts.index, place))
        begin = builder.mul(builder.mul(parts.index, ir.Constant(word, lanes)), target_step)
        begin = builder.add(target, begin)
        with cgutils.for_range(builder, ir.Constant(word, rows // some)) as chunks:
            first = builder.mul(builder.mul(chunks.index, ir.Constant(word, some)), source_step)
            vectors = _read(builder, kind, size, builder.add(part, first), source_step, range(some))
            column_at = builder.add(begin, builder.mul(chunks.index, place))
            for lane, column in enumerate(_columns(builder, vectors)):
                piece = _picked(builder, column)
                offset = builder.mul(target_step, ir.Constant(word, lane))
                builder.store(piece, at(builder, column_at, piece.type, offset), align=item)


@literal_instruction
def transpose(typingctx, like, count, source, source_step, target, target_step):
    """Transpose ``count`` vectors.

    Reads vectors at ``source + i * source_step`` and writes, for each lane, ``count`` contiguous elements at
    ``target + lane * target_step``. ``count`` is a literal power of two, at most the number of lanes.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    kind = Vector(like)

    def codegen(context, builder, sig, args):
        rows = min(count.literal_value, kind.lanes)
        _transpose(builder, kind, register_bytes(context), rows, args[2:])
        return context.get_dummy_value()

    return types.none(like, count, *[types.int64] * 4), codegen


@literal_instruction
def stream_turned(typingctx, like, count, source, target):
    """Transpose ``count`` contiguous vectors, writing past the caches.

    Reads vectors at ``source`` and writes as many at ``target``, a multiple of 64: for each lane the
    elements of all vectors. ``count`` is a literal.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    kind = Vector(like)

    def codegen(context, builder, sig, args):
        size, rows, word = register_bytes(context), count.literal_value, ir.IntType(64)
        register = ir.VectorType(kind.llvm.element, kind.lanes * size // BYTES)
        for start in range(0, BYTES, size):
            part = builder.add(args[2], ir.Constant(word, start))
            read = partial(_read, builder, kind, size, part, ir.Constant(word, BYTES), range(rows))
            for number, line in _lines(builder, register, rows, read):
                offset = ir.Constant(word, start * rows + number * size)
                write_past(builder, line, at(builder, args[3], line.type, offset), size)
        return context.get_dummy_value()

    return types.none(like, count, types.int64, types.int64), codegen


@instruction
def widen(typingctx, vector, part):
    """Convert half of a vector of float32, the first if ``part`` is 0, to float64; float64 is unchanged."""
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
    """Convert two halves to float32, the inverse of `widen`; for float64, return the first unchanged."""
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
    """Convert bits of floats to float32.

    Of int16, the lanes of half ``part`` are converted, as float16 if ``half``, otherwise as bfloat16; of
    int32, all lanes.
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

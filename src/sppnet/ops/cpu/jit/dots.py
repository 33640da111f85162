"""Products of rows and vectors in float32, summed along both, for the loops of `sppnet.ops.cpu.jit.simd`."""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

from llvmlite import ir
from numba import types

from sppnet.ops.cpu.jit.inline import cgutils
from sppnet.ops.cpu.jit.shuffles import register_bytes
from sppnet.ops.cpu.jit.simd import BYTES, Vector, at, instruction, shuffle

_WORD = ir.IntType(64)


def _partial(builder, kind, rows, vectors, size, some: range) -> list:
    """Return a register of partial sums of products for each row and each vector of ``some``."""
    name = f"llvm.fmuladd.v{kind.count}f32"
    fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    zero = ir.Constant(kind, None)
    kept = [[cgutils.alloca_once(builder, kind) for _ in some] for _ in rows]
    for line in kept:
        for place in line:
            builder.store(zero, place)
    start, step = ir.Constant(_WORD, 0), ir.Constant(_WORD, BYTES)
    with cgutils.for_range_slice(builder, start, size, step) as (here, _):
        totals = [[builder.load(place) for place in line] for line in kept]
        for offset in range(0, BYTES, 4 * kind.count):
            x = [builder.add(builder.add(row, here), ir.Constant(_WORD, offset)) for row in rows]
            x = [builder.load(at(builder, place, kind), align=4) for place in x]
            for column, number in enumerate(some):
                place = builder.add(vectors, builder.mul(here, ir.Constant(_WORD, 4)))
                place = builder.add(place, ir.Constant(_WORD, number * BYTES + offset))
                vector = builder.load(at(builder, place, kind), align=4)
                for i in range(len(rows)):
                    totals[i][column] = builder.call(fma, [x[i], vector, totals[i][column]])
        for line, places in zip(totals, kept, strict=True):
            for total, place in zip(line, places, strict=True):
                builder.store(total, place)
    return [[builder.load(place) for place in line] for line in kept]


def _sums(builder, vectors: list) -> list:
    """Compute the sum of the lanes of each vector, packed into vectors; the number is a power of two."""
    # Lane i of the remaining vectors has a partial sum of vector names[i].
    count = vectors[0].type.count
    left, run = [(vector, [i] * count) for i, vector in enumerate(vectors)], count
    while run > 1:
        run //= 2
        merged = []
        for (a, names_a), (b, names_b) in zip(left[::2], left[1::2], strict=True):
            starts = range(0, count, 2 * run)
            low = [s + base + i for s in starts for base in (0, count) for i in range(run)]
            high = [lane + run for lane in low]
            both = builder.fadd(shuffle(builder, a, b, low), shuffle(builder, a, b, high))
            merged.append((both, [(names_a + names_b)[lane] for lane in low]))
        left = merged
    order = [sorted(range(count), key=names.__getitem__) for _, names in left]
    return [shuffle(builder, total, total, lanes) for (total, _), lanes in zip(left, order, strict=True)]


def _joined(builder, vectors: list):
    """Concatenate vectors, whose number is a power of two."""
    while len(vectors) > 1:
        lanes = list(range(2 * vectors[0].type.count))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [shuffle(builder, a, b, lanes) for a, b in pairs]
    return vectors[0]


@instruction
def dots(typingctx, r0, r1, r2, r3, vectors, size):
    """Compute 4 x 4 products of rows of ``size`` bytes and vectors ``[..., 4, 16]``, as one vector."""
    result = Vector(types.float32)

    def codegen(context, builder, sig, args):
        rows, vectors, size = args[:4], args[4], args[5]
        register = register_bytes(context)
        kind = ir.VectorType(ir.FloatType(), register // 4)
        # As many sums at a time as fit into registers, of which other extensions have half as many as
        # AVX-512.
        each = 4 if register == BYTES else 2
        parts = [_partial(builder, kind, rows, vectors, size, range(k, k + each)) for k in range(0, 4, each)]
        totals = [total for i in range(4) for part in parts for total in part[i]]
        return _joined(builder, _sums(builder, totals))

    return result(*[types.int64] * 6), codegen

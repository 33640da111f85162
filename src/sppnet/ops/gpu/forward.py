"""Forward kernels of pyramid pooling on a GPU, which read the tables of `sppnet.ops.gpu.tables`.

A program is one warp: one box and as many channels as there are lanes, or twice as many of 16 bits. All bins
of a level are in registers, from which the levels that divide it are derived, as on the CPU.
"""

# This code is compiled by Triton, whose types basedpyright cannot infer, and which does not support
# stars in tuples and loops without their variable.
# ruff: noqa: RUF005, B007
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sppnet.ops.bins import count_bins, parents
from sppnet.ops.gpu.launch import CACHED_PLANS, Launch, chunks
from sppnet.ops.gpu.tables import Form, Preparation, RegionsForm, greater, preparation

LARGEST = 8
"""Maximum level whose bins are in registers; larger levels are pooled bin by bin."""
_DOUBLINGS = 2
"""Number of doublings of the tables of maxima, if they are used."""
_TABLE_BYTES = 512 << 20
"""Maximum size in bytes of the tables of maxima."""
LEAST = tl.constexpr(-(2**63))
"""A value less than any key."""


@triton.jit
def unit(C, BLOCK_C: tl.constexpr):
    """Return the box and the channels of this program."""
    blocks = (C + BLOCK_C - 1) // BLOCK_C
    return tl.program_id(0) // blocks, (tl.program_id(0) % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def box_of(boxes, r, H, W, IS_WHOLE: tl.constexpr):
    """Return map, first cell of the map, the same for maps larger by a row and column, width, corners."""
    if IS_WHOLE:
        first = r.to(tl.int64) * H * W
        return r, first, first + r.to(tl.int64) * (H + W + 1), W, 0, 0, W, H
    else:
        at = boxes + r.to(tl.int64) * 8
        first = tl.load(at + 1).to(tl.int64)
        return (
            tl.load(at), first, first + tl.load(at + 2), tl.load(at + 3),
            tl.load(at + 4), tl.load(at + 5), tl.load(at + 6), tl.load(at + 7),
        )  # fmt: skip


@triton.jit
def edges_of(k, low, high, LEVEL: tl.constexpr):
    """Return the first cell of bin k of a side, and the one past its last."""
    return low + k * (high - low) // LEVEL, low + ((k + 1) * (high - low) + LEVEL - 1) // LEVEL


@triton.jit
def place_of(c, C, bin, BINS: tl.constexpr):
    """Offset of a bin in a feature vector, from the start of its level."""
    return c * BINS + bin


@triton.jit
def _stack(values, N: tl.constexpr):
    """Stack N vectors ``[BLOCK_C]`` to ``[BLOCK_C, N]``; N is a power of two."""
    if N == 1:
        return values[0][:, None]
    else:
        even = ()
        odd = ()
        for i in tl.static_range(N // 2):
            even = even + (values[2 * i],)
            odd = odd + (values[2 * i + 1],)
        if N == 2:
            return tl.join(even[0], odd[0])
        else:
            left, right = _stack(even, N // 2), _stack(odd, N // 2)
            return tl.reshape(tl.join(left, right), [left.shape[0], N])


@triton.jit
def _write(out, values, c, C, BINS: tl.constexpr):
    """Write the bins of a level to ``out``, the start of the level in a feature vector.

    They are stacked and padded to a power of two by repetition, which is masked, so that one store writes
    whole channels, which are contiguous in memory.
    """
    SIDE: tl.constexpr = triton.next_power_of_2(BINS)
    bin = tl.arange(0, SIDE)[None, :]
    some = values
    for i in tl.static_range(SIDE - BINS):
        some = some + (values[i],)
    made = _stack(some, SIDE).to(out.dtype.element_ty)
    tl.store(out + c[:, None] * BINS + bin, made, mask=(c < C)[:, None] & (bin < BINS), cache_modifier=".cs")


@triton.jit
def _derive(best, LEVEL: tl.constexpr, N: tl.constexpr):
    """Derive the maxima of level N from those of a level that it divides."""
    TIMES: tl.constexpr = LEVEL // N
    made = ()
    for a in tl.static_range(N):
        for b in tl.static_range(N):
            value = best[a * TIMES * LEVEL + b * TIMES]
            for i in tl.static_range(TIMES):
                for j in tl.static_range(TIMES):
                    value = greater(value, best[(a * TIMES + i) * LEVEL + b * TIMES + j])
            made = made + (value,)
    return made


@triton.jit
def maxima(
    tables, S, C, c, first, width, x0, y0, x1, y1, start, ROWS: tl.constexpr,
    LEVEL: tl.constexpr, BLOCK_C: tl.constexpr, IS_UNMASKED: tl.constexpr, DOUBLINGS: tl.constexpr,
):  # fmt: skip
    """Compute the maxima of ``ROWS`` rows of bins of a level from ``start`` on, as numbers or keys.

    Each bin is covered by overlapping blocks of 2^i x 2^j cells from ``tables``, the largest that fit into
    the smallest bin. ``IS_UNMASKED``: no program has lanes without a channel.
    """
    IS_KEYS: tl.constexpr = tables.dtype.element_ty == tl.int64
    across, down = x1 - x0, y1 - y0
    narrow, low = (across + LEVEL - 1) // LEVEL, (down + LEVEL - 1) // LEVEL
    i, j = down * 0, across * 0
    for doubling in tl.static_range(1, DOUBLINGS + 1):
        i += (low >= (1 << doubling)).to(tl.int32)
        j += (narrow >= (1 << doubling)).to(tl.int32)
    high, wide = 1 << i, 1 << j
    table = tables + (i * (DOUBLINGS + 1) + j).to(tl.int64) * S * C + first * C
    lefts, rights, tops, bottoms = (), (), (), ()
    for k in tl.static_range(LEVEL):
        left, right = edges_of(k, x0, x1, LEVEL)
        lefts, rights = lefts + (left,), rights + (right - wide,)
    for k in tl.static_range(ROWS):
        top, bottom = edges_of(start + k, y0, y1, LEVEL)
        tops, bottoms = tops + (top,), bottoms + (bottom - high,)
    best = ()
    for k in tl.static_range(ROWS * LEVEL):
        least = tl.full([BLOCK_C], LEAST if IS_KEYS else float("-inf"), tl.int64 if IS_KEYS else tl.float32)
        best = best + (least,)
    # The lengths of bins differ by at most one cell.
    for dy in range(0, low + (down % LEVEL != 0).to(tl.int32), high):
        for dx in range(0, narrow + (across % LEVEL != 0).to(tl.int32), wide):
            columns = ()
            for b in tl.static_range(LEVEL):
                columns = columns + (tl.minimum(lefts[b] + dx, rights[b]) * C,)
            better = ()
            for a in tl.static_range(ROWS):
                line = tl.minimum(tops[a] + dy, bottoms[a]) * width * C
                for b in tl.static_range(LEVEL):
                    at = table + (line + columns[b]) + c
                    value = tl.load(at) if IS_UNMASKED else tl.load(at, mask=c < C, other=0)
                    value = value if IS_KEYS else value.to(tl.float32)
                    better = better + (greater(best[a * LEVEL + b], value),)
            best = better
    return best


@triton.jit(do_not_specialize=["S", "BINS", "before", "H", "W"])
def _max_kernel(
    tables, boxes, out, S, C, BINS, before, H, W,
    IS_WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK_C: tl.constexpr,
    IS_UNMASKED: tl.constexpr, DOUBLINGS: tl.constexpr, DERIVED: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Compute the maxima of a level, then those of the levels that are derived from them.

    ``DERIVED`` has for each derived level its bins per side and the number of bins before it.

    Pointers:
        tables: maxima ``[(DOUBLINGS + 1)^2, S, C]``, or cells ``[S, C]``.
        boxes: int32 ``[N, 8]``; unused if ``IS_WHOLE``.
        out: features ``[N, C * BINS]``, output.
    """
    r, c = unit(C, BLOCK_C)
    _, first, _, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, IS_WHOLE)
    best = maxima(
        tables, S, C, c, first, width, x0, y0, x1, y1, 0, LEVEL, LEVEL, BLOCK_C, IS_UNMASKED, DOUBLINGS
    )
    row = out + r.to(tl.int64) * C * BINS
    _write(row + before * C, best, c, C, LEVEL * LEVEL)
    for d in tl.static_range(COUNT):
        made = _derive(best, LEVEL, DERIVED[2 * d])
        _write(row + DERIVED[2 * d + 1] * C, made, c, C, DERIVED[2 * d] * DERIVED[2 * d])


@triton.jit(do_not_specialize=["BINS", "before", "H", "W"])
def _bin_kernel(
    cells, boxes, out, C, BINS, before, H, W,
    IS_WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK_C: tl.constexpr, IS_MEAN: tl.constexpr,
):  # fmt: skip
    """Return a level of any size, bin by bin: maxima or means.

    Pointers:
        cells: ``[S, C]``, or tables of maxima, the first of which has the cells.
        boxes: int32 ``[N, 8]``; unused if ``IS_WHOLE``.
        out: features ``[N, C * BINS]``, output.
    """
    r, c = unit(C, BLOCK_C)
    _, first, _, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, IS_WHOLE)
    origin = cells + first * C + c
    row = out + r.to(tl.int64) * C * BINS + before * C
    for a in range(LEVEL):
        top, bottom = edges_of(a, y0, y1, LEVEL)
        for b in range(LEVEL):
            left, right = edges_of(b, x0, x1, LEVEL)
            made = tl.full([BLOCK_C], 0.0 if IS_MEAN else float("-inf"), tl.float32)
            for y in range(top, bottom):
                for x in tl.range(left, right, loop_unroll_factor=4):
                    value = tl.load(origin + (y * width + x) * C, mask=c < C, other=0.0).to(tl.float32)
                    made = made + value if IS_MEAN else greater(made, value)
            if IS_MEAN:
                made = made / ((bottom - top) * (right - left)).to(tl.float32)
            place = place_of(c, C, a * LEVEL + b, LEVEL * LEVEL)
            tl.store(row + place, made.to(out.dtype.element_ty), mask=c < C)


class Level(NamedTuple):
    """A level that is pooled in one launch."""

    bins: int
    """Bins per side."""
    before: int
    """Number of bins of the levels before it."""
    derived: tuple[int, ...] | None
    """Bins per side and number of bins before each derived level; None if pooled bin by bin."""


@cache
def plan(levels: tuple[int, ...], mode: str) -> tuple[Level, ...]:
    """Plan the launches for a pyramid: for maxima, the levels that are not derived from others."""
    before = [count_bins(levels[:i]) for i in range(len(levels))]
    if mode == "mean":
        return tuple(Level(n, before[i], None) for i, n in enumerate(levels))
    small = [i for i, n in enumerate(levels) if n <= LARGEST]
    origins = parents([levels[i] for i in small])
    derived: dict[int, tuple[int, ...]] = {small[k]: () for k, origin in enumerate(origins) if k == origin}
    for k, i in enumerate(small):
        root = k
        while origins[root] != root:
            root = origins[root]
        if root != k:
            derived[small[root]] += (levels[i], before[i])
    singles = [i for i, n in enumerate(levels) if n > LARGEST]
    return tuple(Level(levels[i], before[i], derived.get(i)) for i in sorted([*derived, *singles]))


def doublings(form: Form, boxes: int, levels: tuple[int, ...], itemsize: int) -> int:
    """Return the number of doublings of the tables of maxima; 0 if tables are not worth their time."""
    held = [n for n in levels if n <= LARGEST]
    batch, channels, height, width = form[0]
    cells = batch * height * width
    if not held or boxes * max(held) ** 2 < 8 * cells:
        return 0
    return _DOUBLINGS if (_DOUBLINGS + 1) ** 2 * cells * channels * itemsize <= _TABLE_BYTES else 0


def lanes(channels: int, dtype: torch.dtype) -> int:
    """Return the number of channels per program: one per lane of a warp, two of 16 bits."""
    return min(1 << (channels - 1).bit_length(), 32 if dtype.itemsize == 4 else 64)


class Pooling(NamedTuple):
    """A plan for pooling maps of one form."""

    preparation: Preparation
    rows: tuple[int, int]
    """Shape of the features, ``[N, C * bins]``."""
    launches: list[Launch]
    """Launches that read tables and boxes, and write features."""


BoxesForm = int | RegionsForm | None
"""Number of given boxes, or the form of the regions that are converted to boxes; None for whole maps."""


def count_of(form: Form, boxes: BoxesForm) -> int:
    """Return the number of boxes."""
    if boxes is None:
        return form[0][0]
    return boxes[0] if isinstance(boxes, tuple) else boxes


@lru_cache(CACHED_PLANS)
def pooling(form: Form, boxes: BoxesForm, levels: tuple[int, ...], mode: str) -> Pooling:
    """Plan the pooling of maps.

    Args:
        form: form of the maps.
        boxes: form of the boxes.
        levels: bins per side of each level.
        mode: ``"max"`` or ``"mean"``.
    """
    (batch, channels, height, width), _, dtype, device, _ = form
    count, regions, doubled = count_of(form, boxes), None, 0
    if isinstance(boxes, tuple):
        regions = boxes
        doubled = doublings(form, count, levels, dtype.itemsize) if mode == "max" else 0
    bins, block = count_bins(levels), lanes(channels, dtype)
    launches: list[Launch] = []
    for n, before, derived in plan(levels, mode):
        sizes: tuple[object, ...] = (channels, bins, before, height, width)
        constants: tuple[object, ...] = (boxes is None, n, block)
        kernel, registers = _bin_kernel, None
        if derived is None:
            constants += (mode == "mean",)
        else:
            constants += (channels % block == 0, doubled, derived, len(derived) // 2)
            kernel, sizes = _max_kernel, (batch * height * width, *sizes)
            # More registers reduce the number of resident programs too much; levels above 6 require them.
            registers = 128 if n <= 6 else None
        code = (dtype, device, channels == 1, channels % 16 == 0, constants)
        programs = chunks(channels, block) * count
        launches.append(Launch(kernel, programs, (*sizes, *constants), code, 1, registers))
    return Pooling(preparation(form, doubled, False, regions), (count, bins * channels), launches)


def pool(plan: Pooling, stream: int, read: Tensor, boxes: Tensor | None) -> Tensor:
    """Compute features ``[N, C * bins]`` of boxes, in the dtype of the maps.

    Args:
        plan: plan for maps of this form.
        stream: from `sppnet.ops.gpu.launch.stream_of`.
        read: tables of maxima, or cells of the maps ``[S, C]``.
        boxes: int32 ``[N, 8]``, or None for the whole maps.
    """
    out = read.new_empty(plan.rows)
    if boxes is None:
        boxes = out
    for launch in plan.launches:
        launch(stream, read, boxes, out)
    return out

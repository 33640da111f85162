"""Backward kernels of pyramid pooling on a GPU; see `sppnet.ops.gpu.forward`.

Maxima are searched among keys that combine number and cell, see `sppnet.ops.gpu.tables.prepare`. Gradients
are added as 64-bit fixed-point numbers, whose sums do not depend on the order, so that atomic additions of
several programs are deterministic. They take most of the time; therefore a bin of a derived level adds to the
gradient of the bin from which it has its maximum, instead of a cell.
"""

# This code is compiled by Triton, whose types basedpyright cannot infer, and which does not support
# stars in tuples and loops without their variable.
# ruff: noqa: RUF005
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sppnet.ops.bins import count_bins
from sppnet.ops.gpu.backward_levels import launched_levels
from sppnet.ops.gpu.forward import (
    LEAST,
    BoxesForm,
    box_of,
    count_of,
    doublings,
    edges_of,
    lanes,
    maxima,
    place_of,
    unit,
)
from sppnet.ops.gpu.launch import CACHED_PLANS, Launch, chunks, stream_of
from sppnet.ops.gpu.tables import (
    BLOCK_CELLS,
    BLOCK_CHANNELS,
    Form,
    Preparation,
    Regions,
    aligned,
    cell_of,
    form_of,
    form_of_regions,
    greater,
    preparation,
    prepare,
    tile,
    unit_step,
)

_SCANNED = 4096
"""Gradients per step of the search for the largest one."""


@triton.jit(do_not_specialize=["SIZE", "PROGRAMS"])
def _largest_kernel(grad, notes, SIZE, PROGRAMS, BLOCK_GRADIENTS: tl.constexpr):
    """Store the bits of the largest finite magnitude of all gradients; bits are ordered as magnitudes."""
    best = tl.zeros([BLOCK_GRADIENTS], tl.float32)
    for start in range(tl.program_id(0) * BLOCK_GRADIENTS, SIZE, PROGRAMS * BLOCK_GRADIENTS):
        at = tl.cast(start, tl.int64) + tl.arange(0, BLOCK_GRADIENTS)
        given = tl.load(grad + at, mask=at < SIZE, other=0.0).to(tl.float32)
        best = tl.maximum(best, tl.where((given - given) == 0, tl.abs(given), 0.0))
    tl.atomic_max(notes, tl.max(best, 0).to(tl.int32, bitcast=True), sem="relaxed")


@triton.jit
def _power(notes, ROOM, SIGN: tl.constexpr):
    """Return the power of two, float64, that scales the largest gradient to ``ROOM`` bits; or its inverse."""
    exponent = (tl.load(notes) >> 23) - 126
    return ((SIGN * (ROOM - exponent) + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _fixed(given, scale):
    """Convert gradients to fixed point; values that are not finite become 0."""
    return tl.where((given - given) == 0, given.to(tl.float64) * scale, 0.0).to(tl.int64)


@triton.jit
def _mark(notes, place, there, doubt):
    """Mark the channels of maps with gradients that are not finite, whose difference to themselves is NaN."""
    tl.store(notes + 1 + place, tl.full(doubt.shape, 1, tl.int32), mask=there & (doubt != 0))


@triton.jit
def _given(row, c, C, bin, BINS: tl.constexpr):
    """Compute the gradients of a bin of a level of ``BINS`` bins that begins at ``row``."""
    return tl.load(row + place_of(c, C, bin, BINS), mask=c < C, other=0.0).to(tl.float32)


@triton.jit
def _winner(best, ROW: tl.constexpr, ROWS: tl.constexpr, START: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the index of the bin with the largest maximum among ``ROWS`` x ``COLUMNS`` from ``START``."""
    most = best[START]
    winner = tl.zeros(most.shape, tl.int32) + START
    for i in tl.static_range(ROWS):
        for j in tl.static_range(COLUMNS):
            other = best[i * ROW + START + j]
            winner = tl.where(other > most, i * ROW + START + j, winner)
            most = tl.maximum(most, other)
    return winner


@triton.jit
def _share(winners, amounts, K: tl.constexpr, BIN: tl.constexpr):
    """Return the share of bin K in the gradient of the derived bin that contains it."""
    return tl.where(winners[BIN] == K, amounts[BIN], 0)


@triton.jit(do_not_specialize=["S", "BINS", "before", "H", "W", "ROOM", "before_too"])
def _max_kernel(
    tables, boxes, grad, sums, notes, S, C, BINS, before, H, W, ROOM, before_too,
    IS_WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK_C: tl.constexpr,
    IS_UNMASKED: tl.constexpr, DOUBLINGS: tl.constexpr, ROWS: tl.constexpr, TOO: tl.constexpr,
):  # fmt: skip
    """Add each bin's gradient to the sum of its maximum's first cell, ``ROWS`` rows of bins at a time.

    If ``TOO`` is not 0, a row of the derived level with that number of bins per side is derived from these
    rows: the gradients of its bins are added to those of the bins from which they have their maxima.

    Pointers:
        tables: keys ``[(DOUBLINGS + 1)^2, S, C]``.
        boxes: int32 ``[N, 8]``; unused if ``IS_WHOLE``.
        grad: gradients of the features ``[N, C * BINS]``.
        sums: int64 ``[S, C]``, sums in fixed point, output.
        notes: int32: bits of the largest gradient, then marks ``[B, C]``, output.
    """
    r, c = unit(C, BLOCK_C)
    owner, first, _, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, IS_WHOLE)
    row = grad + r.to(tl.int64) * C * BINS
    too, row = row + before_too * C, row + before * C
    by, doubt = _power(notes, ROOM, 1), tl.zeros([BLOCK_C], tl.float32)
    for a in range(LEVEL // ROWS):
        best = maxima(
            tables, S, C, c, first, width, x0, y0, x1, y1, a * ROWS, ROWS, LEVEL, BLOCK_C, IS_UNMASKED,
            DOUBLINGS,
        )  # fmt: skip
        winners, amounts = (), ()
        for b in tl.static_range(TOO):
            given = _given(too, c, C, a * TOO + b, TOO * TOO)
            doubt += given - given
            amounts = amounts + (_fixed(given, by),)
            winners = winners + (_winner(best, LEVEL, ROWS, b * (LEVEL // TOO), LEVEL // TOO),)
        for k in tl.static_range(ROWS * LEVEL):
            given = _given(row, c, C, a * ROWS * LEVEL + k, LEVEL * LEVEL)
            doubt += given - given
            amount = _fixed(given, by)
            if TOO > 0:
                amount += _share(winners, amounts, k, k % LEVEL * TOO // LEVEL)
            to = sums + cell_of(best[k]) * C + c
            tl.atomic_add(to, amount, mask=(c < C) & (amount != 0), sem="relaxed")
    _mark(notes, owner * C + c, c < C, doubt)


@triton.jit(do_not_specialize=["BINS", "before", "H", "W", "ROOM"])
def _bin_kernel(
    cells, boxes, grad, sums, notes, C, BINS, before, H, W, ROOM,
    IS_WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute `_max_kernel` for one level of any size, bin by bin; ``cells`` is keys ``[S, C]``."""
    r, c = unit(C, BLOCK_C)
    owner, first, _, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, IS_WHOLE)
    origin = cells + first * C + c
    row = grad + r.to(tl.int64) * C * BINS + before * C
    by, doubt = _power(notes, ROOM, 1), tl.zeros([BLOCK_C], tl.float32)
    for a in range(LEVEL):
        top, bottom = edges_of(a, y0, y1, LEVEL)
        for b in range(LEVEL):
            left, right = edges_of(b, x0, x1, LEVEL)
            best = tl.full([BLOCK_C], LEAST, tl.int64)
            for y in range(top, bottom):
                for x in tl.range(left, right, loop_unroll_factor=4):
                    best = greater(best, tl.load(origin + (y * width + x) * C, mask=c < C, other=0))
            given = _given(row, c, C, a * LEVEL + b, LEVEL * LEVEL)
            amount = _fixed(given, by)
            doubt += given - given
            to = sums + cell_of(best) * C + c
            tl.atomic_add(to, amount, mask=(c < C) & (amount != 0), sem="relaxed")
    _mark(notes, owner * C + c, c < C, doubt)


@triton.jit(do_not_specialize=["BINS", "before", "H", "W", "ROOM"])
def _mean_kernel(
    _tables, boxes, grad, sums, notes, C, BINS, before, H, W, ROOM,
    IS_WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add the gradient per cell of each bin at the corners of the bin, on maps of one row and column more.

    Cumulative sums along rows and columns then distribute it to all cells of the bin. ``_tables`` is not
    read; the other pointers are as in `_max_kernel`.
    """
    r, c = unit(C, BLOCK_C)
    there = c < C
    owner, _, first, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, IS_WHOLE)
    row = grad + r.to(tl.int64) * C * BINS + before * C
    target, by, doubt = sums + first * C + c, _power(notes, ROOM, 1), tl.zeros([BLOCK_C], tl.float32)
    line = width + 1
    for a in range(LEVEL):
        top, bottom = edges_of(a, y0, y1, LEVEL)
        for b in range(LEVEL):
            left, right = edges_of(b, x0, x1, LEVEL)
            given = _given(row, c, C, a * LEVEL + b, LEVEL * LEVEL)
            amount = _fixed(given / ((bottom - top) * (right - left)).to(tl.float32), by)
            doubt += given - given
            some = there & (amount != 0)
            tl.atomic_add(target + (top * line + left) * C, amount, mask=some, sem="relaxed")
            tl.atomic_add(target + (top * line + right) * C, -amount, mask=some, sem="relaxed")
            tl.atomic_add(target + (bottom * line + left) * C, -amount, mask=some, sem="relaxed")
            tl.atomic_add(target + (bottom * line + right) * C, amount, mask=some, sem="relaxed")
    _mark(notes, owner * C + c, there, doubt)


@triton.jit(do_not_specialize=["H", "W", "s_map", "s_c", "s_y", "s_x", "ROOM"])
def _finish_kernel(
    sums, notes, out, C, H, W, s_map, s_c, s_y, s_x, ROOM,
    UNIT: tl.constexpr, HAS_MARKS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_CELLS: tl.constexpr,
):  # fmt: skip
    """Convert sums to gradients of the maps, in their layout; with ``HAS_MARKS``, NaN by map and channel."""
    pid = tl.program_id(0)
    c, cell, owner, begin, s_x = tile(pid, C, H, W, s_map, s_c, s_x, UNIT, BLOCK_C, BLOCK_CELLS)
    there = (c < C)[:, None] & (cell < H * W)[None, :]
    place = (owner * H * W + cell)[None, :] * C + c[:, None]
    made = tl.load(sums + place, mask=there, other=0).to(tl.float64) * _power(notes, ROOM, -1)
    made = made.to(tl.float32)
    if HAS_MARKS:
        marks = tl.load(notes + 1 + owner * C + c, mask=c < C, other=0)
        made = tl.where((marks != 0)[:, None], float("nan"), made)
    to = out + begin[:, None] + (cell // W * s_y + cell % W * s_x)[None, :]
    tl.store(to, made.to(out.dtype.element_ty), mask=there)


def pool_backward(
    grad: Tensor,
    maps: Tensor,
    boxes: Tensor | Regions | None,
    sizes: Sequence[tuple[int, int]] | None,
    levels: Sequence[int],
    mode: str,
) -> Tensor:
    """Compute the gradient of `sppnet.ops.gpu.forward.pool`, with dtype and strides of the maps.

    If a gradient is not finite, all gradients of that channel of its map are NaN.

    Args:
        grad: ``[N, C * bins]``.
        maps: ``[B, C, H, W]``.
        boxes: int32 ``[N, 8]``, or regions, or None for the whole maps.
        sizes: heights and widths of maps that were joined to a map of one row; None for a batch.
        levels: bins per side of each level.
        mode: ``"max"`` or ``"mean"``.
    """
    batch, channels, height, width = maps.shape
    given, out, stream = grad.contiguous(), torch.empty_like(maps), stream_of(maps)
    shapes = [(height, width)] * batch if sizes is None else sizes
    regions, which = None, None
    if isinstance(boxes, Regions):
        regions, which = boxes, form_of_regions(boxes, False)
    elif boxes is not None:
        which = len(boxes)
    kind = given.dtype, aligned(given), out.stride()
    plan = _backward(form_of(maps), kind, which, tuple(levels), mode)
    read, table = prepare(plan.preparation, stream, maps, regions)
    if isinstance(boxes, Tensor):
        table = boxes
    # Cumulative sums require one more row and column.
    more = 1 if mode == "mean" else 0
    cells = sum((h + more) * (w + more) for h, w in shapes)
    # A single tensor of zeros for notes and sums, both aligned, saves a launch.
    ahead = chunks(len(shapes) * channels + 1, 4) * 2
    zeros = torch.zeros(ahead + cells * channels, dtype=torch.int64, device=grad.device)
    notes, sums = zeros.view(torch.int32), zeros[ahead:]
    plan.scan(stream, given, notes)
    for launch in plan.adding:
        launch(stream, read, table, given, sums, notes)
    if more:
        sums = _sum_up(sums.view(cells, channels), shapes)
    plan.finish(stream, sums, notes, out)
    if sizes is not None:
        odd = notes[1 : len(sizes) * channels + 1].view(len(sizes), channels)
        marks = torch.where(odd != 0, float("nan"), 0.0)
        lengths = torch.tensor([h * w for h, w in sizes], device="cpu").to(grad.device, non_blocking=True)
        out += marks.repeat_interleave(lengths, 0, output_size=width).T[None, :, None]
    return out


class _Backward(NamedTuple):
    """A plan of the gradient for maps of one form."""

    preparation: Preparation
    scan: Launch
    """Launch that finds the largest gradient."""
    adding: list[Launch]
    """Launches that read tables, boxes and gradients, and add to sums."""
    finish: Launch


@lru_cache(CACHED_PLANS)
def _backward(
    form: Form,
    kind: tuple[torch.dtype, bool, tuple[int, ...]],
    boxes: BoxesForm,
    levels: tuple[int, ...],
    mode: str,
) -> _Backward:
    """Plan `pool_backward`.

    Args:
        form: form of the maps.
        kind: dtype and alignment of the gradient of the features; strides of the gradient of the maps.
        boxes: form of the boxes; a number if maps were joined.
        levels: bins per side of each level.
        mode: ``"max"`` or ``"mean"``.
    """
    (batch, channels, height, width), _, out_dtype, device, _ = form
    dtype, even, steps = kind
    count, joined, doubled = count_of(form, boxes), isinstance(boxes, int), None
    if mode == "max":
        # Blocks of cells of joined maps, which have one row, would span several maps.
        doubled = 0 if joined else doublings(form, count, levels, 8)
    regions = boxes if isinstance(boxes, tuple) else None
    bins, block = count_bins(levels), lanes(channels, torch.float32)
    size = count * channels * bins
    programs = min(chunks(size, _SCANNED), 1024)
    code: tuple[object, ...] = (device, dtype, even, size < 2**31)
    scan = Launch(_largest_kernel, programs, (size, programs, _SCANNED), code, 4)
    # The sum of this number of gradients fits into 63 bits.
    room = 61 - math.ceil(math.log2(count * bins + 1))
    adding: list[Launch] = []
    for n, before, rows, too, before_too in launched_levels(levels, mode):
        numbers: tuple[object, ...] = (channels, bins, before, height, width, room)
        constants: tuple[object, ...] = (boxes is None, n, block)
        kernel = _mean_kernel if mode == "mean" else _bin_kernel
        if rows:
            kernel, numbers = _max_kernel, (batch * height * width, *numbers, before_too)
            constants += (channels % block == 0, doubled, rows, too)
        code = (device, dtype, even, channels == 1, channels % 16 == 0, constants)
        adding.append(Launch(kernel, chunks(channels, block) * count, (*numbers, *constants), code, 1))
    constants = (unit_step(steps), not joined, BLOCK_CHANNELS, BLOCK_CELLS)
    code = (device, out_dtype, channels == 1, channels % 16 == 0, steps[0] < 2**31, constants)
    programs = chunks(height * width, BLOCK_CELLS) * chunks(channels, BLOCK_CHANNELS) * batch
    finish = Launch(_finish_kernel, programs, (channels, height, width, *steps, room, *constants), code, 4)
    return _Backward(preparation(form, doubled, True, regions), scan, adding, finish)


def _sum_up(sums: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Compute cumulative sums along rows and columns of each map, without the last row and column."""
    if len(set(sizes)) == 1:
        sizes, parts = sizes[:1], [sums]
    else:
        parts = sums.split([(h + 1) * (w + 1) for h, w in sizes])
    return torch.cat(
        [
            part.view(-1, h + 1, w + 1, part.shape[1]).cumsum(1).cumsum(2)[:, :-1, :-1].flatten(0, 2)
            for part, (h, w) in zip(parts, sizes, strict=True)
        ]
    )

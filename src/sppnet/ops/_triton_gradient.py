"""Pyramid pooling on a GPU: the backward kernels, in Triton; see `sppnet.ops._triton`.

Maxima are sought among integers of the order of the floats (as in `sppnet.ops._keys.to_key`), so that NaN
is the largest. Gradients are added as 64-bit fixed-point numbers: such sums are the same in any order, so
atomic additions by many programs give one result.
"""

# What is here is run by Triton's compiler, whose types basedpyright cannot follow, and which knows no
# stars in tuples and no loop without its variable.
# ruff: noqa: RUF005, B007
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sppnet.ops._triton import box_of, edges_of, lanes, place_of, plan, unit
from sppnet.ops._triton_prepare import (
    CELLS,
    CHANNELS,
    Regions,
    chunks,
    form_of,
    launch,
    prepare,
    tile,
    unit_step,
)
from sppnet.ops.bins import count_bins

_NAN = tl.constexpr(2**31 - 1)
_LEAST = tl.constexpr(-(2**31))


@triton.jit
def _key(values):
    """Floats as ordered int32; NaN is the largest, and both zeros are one."""
    wide = values.to(tl.float32) + 0.0
    bits = wide.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(wide != wide, _NAN, tl.where(key == -1, 0, key))


@triton.jit(do_not_specialize=["SIZE", "PROGRAMS"])
def _largest_kernel(grad, largest, SIZE, PROGRAMS, BLOCK: tl.constexpr):
    """The bits of the largest finite magnitude of all gradients, which are ordered as it is."""
    best = tl.zeros([BLOCK], tl.float32)
    for start in range(tl.program_id(0) * BLOCK, SIZE, PROGRAMS * BLOCK):
        at = tl.cast(start, tl.int64) + tl.arange(0, BLOCK)
        given = tl.load(grad + at, mask=at < SIZE, other=0.0).to(tl.float32)
        best = tl.maximum(best, tl.where((given - given) == 0, tl.abs(given), 0.0))
    tl.atomic_max(largest, tl.max(best, 0).to(tl.int32, bitcast=True), sem="relaxed")


@triton.jit
def _power(largest, ROOM, SIGN: tl.constexpr):
    """The power of two, float64, that makes the largest gradient one of ``ROOM`` bits; or its inverse."""
    exponent = (tl.load(largest) >> 23) - 126
    return ((SIGN * (ROOM - exponent) + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _given(grad, there, scale, odd):
    """Gradients in fixed point; where one is not finite, 0 instead, and its channel of its map is marked."""
    good = (grad - grad) == 0
    tl.store(odd, tl.full(grad.shape, 1, tl.int32), mask=there & (good == 0))
    return tl.where(good, grad.to(tl.float64) * scale, 0.0).to(tl.int64)


@triton.jit
def _add(given, target, cell, C, there, scale, odd):
    """Add gradients to the sums of cells of a map."""
    amount = _given(tl.load(given, mask=there, other=0.0).to(tl.float32), there, scale, odd)
    tl.atomic_add(target + cell.to(tl.int64) * C, amount, mask=there & (amount != 0), sem="relaxed")


@triton.jit
def _better(key, cell, other, place):
    """Of two maxima the larger, of equal ones that of the first cell."""
    better = (other > key) | ((other == key) & (place < cell))
    return tl.where(better, other, key), tl.where(better, place, cell)


@triton.jit
def _join(keys, places, row_keys, row_places, LEVEL: tl.constexpr, N: tl.constexpr, START: tl.constexpr):
    """A row of the bins of level N, from START on in ``row_keys``, joined with one of a level N divides."""
    more, where = (), ()
    for b in tl.static_range(N):
        key, cell = row_keys[START + b], row_places[START + b]
        for j in tl.static_range(LEVEL // N):
            key, cell = _better(key, cell, keys[b * (LEVEL // N) + j], places[b * (LEVEL // N) + j])
        more, where = more + (key,), where + (cell,)
    return more, where


@triton.jit
def _renewed(row_keys, full, N: tl.constexpr, START: tl.constexpr):
    """The row of level N as it was, or where it was full, an empty one."""
    keys = ()
    for b in tl.static_range(N):
        keys = keys + (tl.where(full, _LEAST, row_keys[START + b]),)
    return keys


@triton.jit
def _add_row(
    given, target, row_places, a, c, C, scale, odd, N: tl.constexpr, START: tl.constexpr, BY_BIN: tl.constexpr
):
    """Add the gradients of row ``a`` of the bins of level N."""
    for b in tl.static_range(N):
        at = given + place_of(c, C, a * N + b, N * N, BY_BIN)
        _add(at, target, row_places[START + b], C, c < C, scale, odd)


@triton.jit(do_not_specialize=["BINS", "before", "H", "W", "ROOM"])
def _max_kernel(
    cells, boxes, grad, sums, odd, largest, C, BINS, before, H, W, ROOM,
    WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK: tl.constexpr, BY_BIN: tl.constexpr,
    DERIVED: tl.constexpr, COUNT: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    """Add each bin's gradient to the sum of its maximum's first cell: a level, then those made from it.

    ``DERIVED`` holds for each of those its bins a side, the bins before it, and the bins a side of those
    before it among them; ``HELD`` is the sum of their bins a side.
    """
    r, c = unit(C, BLOCK)
    there = c < C
    owner, first, _, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, WHOLE)
    across = x1 - x0
    lefts, rights = (), ()
    for b in tl.static_range(LEVEL):
        left, right = edges_of(b, x0, x1, LEVEL)
        lefts, rights = lefts + (left,), rights + (right - 1,)
    widest = (across + LEVEL - 1) // LEVEL + (across % LEVEL != 0).to(tl.int32)
    origin = cells + first * C + c
    row = grad + r.to(tl.int64) * C * BINS
    target, mark, by = sums + first * C + c, odd + owner * C + c, _power(largest, ROOM, 1)
    row_keys, row_places = (), ()
    for k in tl.static_range(HELD):
        row_keys = row_keys + (tl.full([BLOCK], _LEAST, tl.int32),)
        row_places = row_places + (tl.zeros([BLOCK], tl.int32),)
    for a in range(LEVEL):
        top, bottom = edges_of(a, y0, y1, LEVEL)
        keys, places = (), ()
        for b in tl.static_range(LEVEL):
            # Less than any float's.
            keys = keys + (tl.full([BLOCK], _LEAST, tl.int32),)
            places = places + (tl.zeros([BLOCK], tl.int32),)
        for y in range(top, bottom):
            for dx in range(widest):
                more, where = (), ()
                for b in tl.static_range(LEVEL):
                    # A cell met again is not greater than itself.
                    cell = y * width + tl.minimum(lefts[b] + dx, rights[b])
                    key = _key(tl.load(origin + cell * C, mask=there, other=0.0))
                    better = key > keys[b]
                    more = more + (tl.where(better, key, keys[b]),)
                    where = where + (tl.where(better, cell, places[b]),)
                keys, places = more, where
        _add_row(row + before * C, target, places, a, c, C, by, mark, LEVEL, 0, BY_BIN)
        more, where = (), ()
        for d in tl.static_range(COUNT):
            some, spots = _join(keys, places, row_keys, row_places, LEVEL, DERIVED[3 * d], DERIVED[3 * d + 2])
            more, where = more + some, where + spots
        for d in tl.static_range(COUNT):
            if (a + 1) * DERIVED[3 * d] % LEVEL == 0:
                at, line = row + DERIVED[3 * d + 1] * C, a * DERIVED[3 * d] // LEVEL
                _add_row(at, target, where, line, c, C, by, mark, DERIVED[3 * d], DERIVED[3 * d + 2], BY_BIN)
        row_keys, row_places = (), where
        for d in tl.static_range(COUNT):
            full = (a + 1) * DERIVED[3 * d] % LEVEL == 0
            row_keys = row_keys + _renewed(more, full, DERIVED[3 * d], DERIVED[3 * d + 2])


@triton.jit(do_not_specialize=["BINS", "before", "H", "W", "ROOM"])
def _bin_kernel(
    cells, boxes, grad, sums, odd, largest, C, BINS, before, H, W, ROOM,
    WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK: tl.constexpr, BY_BIN: tl.constexpr,
):  # fmt: skip
    """As `_max_kernel` for one level of any size, bin by bin."""
    r, c = unit(C, BLOCK)
    there = c < C
    owner, first, _, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, WHOLE)
    origin = cells + first * C + c
    row = grad + r.to(tl.int64) * C * BINS + before * C
    target, mark, by = sums + first * C + c, odd + owner * C + c, _power(largest, ROOM, 1)
    for a in range(LEVEL):
        top, bottom = edges_of(a, y0, y1, LEVEL)
        for b in range(LEVEL):
            left, right = edges_of(b, x0, x1, LEVEL)
            best = _key(tl.load(origin + (top * width + left) * C, mask=there, other=0.0))
            found = tl.zeros([BLOCK], tl.int32) + top * width + left
            for y in range(top, bottom):
                for x in tl.range(left, right, loop_unroll_factor=4):
                    key = _key(tl.load(origin + (y * width + x) * C, mask=there, other=0.0))
                    better = key > best
                    best, found = tl.where(better, key, best), tl.where(better, y * width + x, found)
            at = row + place_of(c, C, a * LEVEL + b, LEVEL * LEVEL, BY_BIN)
            _add(at, target, found, C, there, by, mark)


@triton.jit(do_not_specialize=["BINS", "before", "H", "W", "ROOM"])
def _mean_kernel(
    boxes, grad, sums, odd, largest, C, BINS, before, H, W, ROOM,
    WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK: tl.constexpr, BY_BIN: tl.constexpr,
):  # fmt: skip
    """Add each bin's share at the corners of the bin, on maps of one row and one column more.

    Sums along rows and columns then hold it in all cells of the bin.
    """
    r, c = unit(C, BLOCK)
    there = c < C
    owner, _, first, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, WHOLE)
    row = grad + r.to(tl.int64) * C * BINS + before * C
    target, mark, by = sums + first * C + c, odd + owner * C + c, _power(largest, ROOM, 1)
    line = width + 1
    for a in range(LEVEL):
        top, bottom = edges_of(a, y0, y1, LEVEL)
        for b in range(LEVEL):
            left, right = edges_of(b, x0, x1, LEVEL)
            at = row + place_of(c, C, a * LEVEL + b, LEVEL * LEVEL, BY_BIN)
            given = tl.load(at, mask=there, other=0.0).to(tl.float32)
            amount = _given(given / ((bottom - top) * (right - left)).to(tl.float32), there, by, mark)
            some = there & (amount != 0)
            tl.atomic_add(target + (top * line + left) * C, amount, mask=some, sem="relaxed")
            tl.atomic_add(target + (top * line + right) * C, -amount, mask=some, sem="relaxed")
            tl.atomic_add(target + (bottom * line + left) * C, -amount, mask=some, sem="relaxed")
            tl.atomic_add(target + (bottom * line + right) * C, amount, mask=some, sem="relaxed")


@triton.jit(do_not_specialize=["H", "W", "s_map", "s_c", "s_y", "s_x", "ROOM"])
def _finish_kernel(
    sums, odd, largest, out, C, H, W, s_map, s_c, s_y, s_x, ROOM,
    UNIT: tl.constexpr, MARKED: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """Sums as gradients of the maps, in their layout; where ``MARKED``, not a number by map and channel."""
    pid = tl.program_id(0)
    c, cell, owner, begin, s_x = tile(pid, C, H, W, s_map, s_c, s_x, UNIT, BLOCK, CELLS)
    there = (c < C)[:, None] & (cell < H * W)[None, :]
    place = (owner * H * W + cell)[None, :] * C + c[:, None]
    made = tl.load(sums + place, mask=there, other=0).to(tl.float64) * _power(largest, ROOM, -1)
    made = made.to(tl.float32)
    if MARKED:
        marks = tl.load(odd + owner * C + c, mask=c < C, other=0)
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
    order: str,
) -> Tensor:
    """The gradient of `sppnet.ops._triton.pool`, with the type and the strides of the maps.

    Where a gradient is not finite, the whole channel of its map is not a number.

    Args:
        grad: ``[N, C * bins]``.
        maps: ``[B, C, H, W]``.
        boxes: int32 ``[N, 8]``, or regions, or None for the whole maps.
        sizes: of maps that were joined to one of a single row, their heights and widths.
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.
        order: ``"channels"`` or ``"bins"``.
    """
    batch, channels, height, width = maps.shape
    bins = count_bins(levels)
    read, table = prepare(maps, boxes, 0)
    # Sums along rows and columns need one row and one column more.
    more = 1 if mode == "mean" else 0
    shapes = [(height, width)] * batch if sizes is None else sizes
    cells = sum((h + more) * (w + more) for h, w in shapes)
    sums = torch.zeros(cells, channels, dtype=torch.int64, device=grad.device)
    notes = torch.zeros(len(shapes) * channels + 1, dtype=torch.int32, device=grad.device)
    odd, largest = notes[1:], notes[:1]
    given = grad.contiguous()
    programs = min(chunks(given.numel(), 4096), 1024)
    form = form_of(given, 0, given.numel() < 2**31)
    launch(_largest_kernel, programs, (given, largest, given.numel(), programs, 4096), form, 4)
    # No sum of so many gradients leaves 63 bits.
    room = 61 - math.ceil(math.log2(len(grad) * bins + 1))
    block = lanes(channels, torch.float32)
    programs = chunks(channels, block) * len(grad)
    at = (given if table is None else table, given, sums, odd, largest)
    for n, before, derived in plan(tuple(levels), mode):
        numbers = (channels, bins, before, height, width, room)
        constants: tuple[object, ...] = (table is None, n, block, order == "bins")
        kernel, args = _mean_kernel, at
        if mode == "max":
            kernel, args = _bin_kernel, (read, *at)
            if derived is not None:
                kernel, constants = _max_kernel, (*constants, *_with_starts(derived))
        form = form_of(read, channels, given.dtype, given.data_ptr() % 16 == 0, constants)
        launch(kernel, programs, (*args, *numbers, *constants), form, 1)
    if more:
        sums = _sum_up(sums, shapes)
    out = torch.empty_like(maps)
    constants = (unit_step(out), sizes is None, CHANNELS, CELLS)
    numbers = (channels, height, width, *out.stride(), room)
    form = form_of(out, channels, out.stride(0) < 2**31, constants)
    programs = chunks(height * width, CELLS) * chunks(channels, CHANNELS) * batch
    launch(_finish_kernel, programs, (sums, odd, largest, out, *numbers, *constants), form, 4)
    if sizes is not None:
        marks = torch.where(odd.view(len(sizes), channels) != 0, float("nan"), 0.0)
        lengths = torch.tensor([h * w for h, w in sizes]).to(grad.device, non_blocking=True)
        out += marks.repeat_interleave(lengths, 0, output_size=width).T[None, :, None]
    return out


def _with_starts(derived: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """The last three constants of `_max_kernel` for the derived levels of a `sppnet.ops._triton.Level`."""
    result: tuple[int, ...] = ()
    held = 0
    for n, before in zip(derived[::2], derived[1::2], strict=True):
        result += (n, before, held)
        held += n
    return result, len(derived) // 2, held


def _sum_up(sums: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Running sums along the rows and columns of each map, without their last row and column."""
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

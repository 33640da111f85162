"""Pyramid pooling on a GPU: kernels in Triton, forward and backward.

Maps come as one tensor ``cells`` ``[S, C]``, cell by cell, whatever their sizes. ``boxes`` int64 ``[N, 7]``
says for each box the first row of its map in ``cells``, the map's height and width, and x0, y0, x1, y1;
the kernels clamp these, so that no box reads out of range.

Maxima are taken of integers of the order of the floats (as in `sppnet.ops._keys.to_key`), so that NaN is the
largest. Gradients are added as 64-bit fixed-point numbers: such sums are the same in any order, so atomic
additions by many programs give one result.
"""

# What is here is run by Triton's compiler, whose types basedpyright cannot follow.
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportCallIssue=false

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sppnet.ops.bins import count_bins, parents

_LEAST = tl.constexpr(-(2**31))
_NAN = tl.constexpr(2**31 - 1)


@triton.jit
def _box(boxes, r):
    """A box's map, the map's width, and the corners, within the map."""
    at = boxes + r.to(tl.int64) * 7
    first, height, width = tl.load(at), tl.load(at + 1).to(tl.int32), tl.load(at + 2).to(tl.int32)
    x0 = tl.minimum(tl.maximum(tl.load(at + 3).to(tl.int32), 0), width - 1)
    y0 = tl.minimum(tl.maximum(tl.load(at + 4).to(tl.int32), 0), height - 1)
    x1 = tl.minimum(tl.maximum(tl.load(at + 5).to(tl.int32), x0 + 1), width)
    y1 = tl.minimum(tl.maximum(tl.load(at + 6).to(tl.int32), y0 + 1), height)
    return first, width, x0, y0, x1, y1


@triton.jit
def _edges(start, stop, LEVEL: tl.constexpr, SIDE: tl.constexpr):
    """First cells and the ones past the last of a side's bins; those from LEVEL on are empty."""
    i = tl.arange(0, SIDE)
    size = stop - start
    first = start + i * size // LEVEL
    last = start + ((i + 1) * size + LEVEL - 1) // LEVEL
    return first, tl.where(i < LEVEL, last, first)


@triton.jit
def _key(values):
    """Floats as ordered int32; NaN is the largest, and both zeros are one."""
    wide = values.to(tl.float32) + 0.0
    bits = wide.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(wide != wide, _NAN, tl.where(key == -1, 0, key))


@triton.jit
def _value(key):
    """The float32 of a key."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _targets(r, c, C, BINS, before, LEVEL: tl.constexpr, SIDE: tl.constexpr, BY_BIN: tl.constexpr):
    """Places ``[c, SIDE, SIDE]`` of a level's bins in the rows, and which of them there are."""
    i, j = tl.arange(0, SIDE), tl.arange(0, SIDE)
    bins = (i[:, None] * LEVEL + j[None, :])[None, :, :]
    channel = c[:, None, None]
    if BY_BIN:
        place = (before + bins) * C + channel
    else:
        place = before * C + channel * (LEVEL * LEVEL) + bins
    inside = (i[:, None] < LEVEL) & (j[None, :] < LEVEL)
    return r.to(tl.int64) * C * BINS + place, inside[None, :, :] & (channel < C)


@triton.jit
def _derive(
    best, LEVEL: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr, N: tl.constexpr, FULL: tl.constexpr
):
    """From the maxima of a level those of level N, which divides it."""
    i, k = tl.arange(0, SIDE) // (LEVEL // N), tl.arange(0, FULL)
    made = tl.full([BLOCK, FULL, FULL], _LEAST, tl.int32)
    for a in tl.static_range(N):
        rows = tl.max(tl.where((i == a)[None, :, None], best, _LEAST), 1)
        for b in tl.static_range(N):
            value = tl.max(tl.where((i == b)[None, :], rows, _LEAST), 1)
            here = (k[:, None] == a) & (k[None, :] == b)
            made = tl.where(here[None, :, :], value[:, None, None], made)
    return made


@triton.jit
def _max_kernel(
    cells, boxes, out, C, BINS, before,
    LEVEL: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr, BY_BIN: tl.constexpr,
    DERIVED: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """One box and BLOCK channels: a level row by row, then the levels that are made from it.

    ``DERIVED`` holds for each such level the bins a side, their power of two, and the bins before it.
    """
    r, c = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first, width, x0, y0, x1, y1 = _box(boxes, r)
    left, right = _edges(x0, x1, LEVEL, SIDE)
    top, bottom = _edges(y0, y1, LEVEL, SIDE)
    widest = tl.max(right - left, 0)
    best = tl.full([BLOCK, SIDE, SIDE], _LEAST, tl.int32)
    for y in range(y0, y1):
        line = tl.full([BLOCK, SIDE], _LEAST, tl.int32)
        for step in range(widest):
            x = left + step
            there = (x < right)[None, :] & (c < C)[:, None]
            place = (first + y * width + x)[None, :] * C + c[:, None]
            values = tl.load(cells + place, mask=there, other=0)
            line = tl.maximum(line, tl.where(there, _key(values), _LEAST))
        here = (y >= top) & (y < bottom)
        best = tl.maximum(best, tl.where(here[None, :, None], line[:, None, :], _LEAST))
    target, there = _targets(r, c, C, BINS, before, LEVEL, SIDE, BY_BIN)
    tl.store(out + target, _value(best).to(out.dtype.element_ty), mask=there)
    for d in tl.static_range(COUNT):
        made = _derive(best, LEVEL, SIDE, BLOCK, DERIVED[3 * d], DERIVED[3 * d + 1])
        target, there = _targets(
            r, c, C, BINS, DERIVED[3 * d + 2], DERIVED[3 * d], DERIVED[3 * d + 1], BY_BIN
        )
        tl.store(out + target, _value(made).to(out.dtype.element_ty), mask=there)


@triton.jit
def _mean_kernel(
    cells, boxes, out, C, BINS, before,
    LEVEL: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr, BY_BIN: tl.constexpr,
):  # fmt: skip
    """One box, one level and BLOCK channels."""
    r, c = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first, width, x0, y0, x1, y1 = _box(boxes, r)
    left, right = _edges(x0, x1, LEVEL, SIDE)
    top, bottom = _edges(y0, y1, LEVEL, SIDE)
    widest = tl.max(right - left, 0)
    total = tl.zeros([BLOCK, SIDE, SIDE], tl.float32)
    for y in range(y0, y1):
        line = tl.zeros([BLOCK, SIDE], tl.float32)
        for step in range(widest):
            x = left + step
            there = (x < right)[None, :] & (c < C)[:, None]
            place = (first + y * width + x)[None, :] * C + c[:, None]
            line += tl.load(cells + place, mask=there, other=0).to(tl.float32)
        here = (y >= top) & (y < bottom)
        total += tl.where(here[None, :, None], line[:, None, :], 0.0)
    area = (bottom - top)[:, None] * (right - left)[None, :]
    mean = total / tl.maximum(area, 1)[None, :, :].to(tl.float32)
    target, there = _targets(r, c, C, BINS, before, LEVEL, SIDE, BY_BIN)
    tl.store(out + target, mean.to(out.dtype.element_ty), mask=there)


@triton.jit
def _fixed(grad, there, scale, odd, channel):
    """Gradients in fixed point; where one is not finite, 0 instead, and its channel of its map is marked."""
    good = (grad - grad) == 0
    tl.store(odd + channel, tl.full(grad.shape, 1, tl.int8), mask=there & (good == 0))
    return tl.where(good, grad.to(tl.float64) * tl.load(scale), 0.0).to(tl.int64)


@triton.jit
def _max_gradient_kernel(
    cells, boxes, owners, grad, sums, odd, scale, C, BINS, before,
    LEVEL: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr, BY_BIN: tl.constexpr,
):  # fmt: skip
    """Add each bin's gradient to the sum of the first cell of its maximum."""
    r, c = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first, width, x0, y0, x1, y1 = _box(boxes, r)
    left, right = _edges(x0, x1, LEVEL, SIDE)
    top, bottom = _edges(y0, y1, LEVEL, SIDE)
    tallest, widest = tl.max(bottom - top, 0), tl.max(right - left, 0)
    best = tl.full([BLOCK, SIDE, SIDE], _LEAST, tl.int32)
    found = tl.zeros([BLOCK, SIDE, SIDE], tl.int32)
    for down in range(tallest):
        for across in range(widest):
            y, x = top + down, left + across
            here = (y < bottom)[:, None] & (x < right)[None, :]
            cell = y[:, None] * width + x[None, :]
            there = here[None, :, :] & (c < C)[:, None, None]
            place = (first + cell)[None, :, :] * C + c[:, None, None]
            key = _key(tl.load(cells + place, mask=there, other=0))
            # The first cell counts even where it is the least number of all.
            better = there & ((key > best) | ((down + across) == 0))
            best = tl.where(better, key, best)
            found = tl.where(better, tl.broadcast_to(cell[None, :, :], [BLOCK, SIDE, SIDE]), found)
    target, there = _targets(r, c, C, BINS, before, LEVEL, SIDE, BY_BIN)
    channel = tl.broadcast_to((tl.load(owners + r) * C + c)[:, None, None], [BLOCK, SIDE, SIDE])
    given = tl.load(grad + target, mask=there, other=0).to(tl.float32)
    amount = _fixed(given, there, scale, odd, channel)
    tl.atomic_add(sums + (first + found) * C + c[:, None, None], amount, mask=there, sem="relaxed")


@triton.jit
def _mean_gradient_kernel(
    boxes, owners, grad, sums, odd, scale, C, BINS, before,
    LEVEL: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr, BY_BIN: tl.constexpr,
):  # fmt: skip
    """Add each bin's share at the corners of the bin, on maps of one row and one column more.

    Sums along rows and columns then hold it in all cells of the bin.
    """
    r, c = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first, width, x0, y0, x1, y1 = _box(boxes, r)
    left, right = _edges(x0, x1, LEVEL, SIDE)
    top, bottom = _edges(y0, y1, LEVEL, SIDE)
    area = tl.maximum((bottom - top)[:, None] * (right - left)[None, :], 1)
    target, there = _targets(r, c, C, BINS, before, LEVEL, SIDE, BY_BIN)
    channel = tl.broadcast_to((tl.load(owners + r) * C + c)[:, None, None], [BLOCK, SIDE, SIDE])
    given = tl.load(grad + target, mask=there, other=0).to(tl.float32)
    amount = _fixed(given / area[None, :, :].to(tl.float32), there, scale, odd, channel)
    line = width + 1
    for side in tl.static_range(4):
        y = top if side < 2 else bottom
        x = left if side % 2 == 0 else right
        place = (first + y[:, None] * line + x[None, :])[None, :, :] * C + c[:, None, None]
        signed = amount if side == 0 or side == 3 else -amount
        tl.atomic_add(sums + place, signed, mask=there, sem="relaxed")


def _side(level: int) -> int:
    return triton.next_power_of_2(level)


def _block(channels: int, side: int, values: int) -> int:
    """Channels a program: about ``values`` bins and channels together, a power of two."""
    return max(1, min(triton.next_power_of_2(channels), values // (side * side)))


def _before(levels: Sequence[int]) -> list[int]:
    return [count_bins(levels[:i]) for i in range(len(levels))]


def pool(cells: Tensor, boxes: Tensor, levels: Sequence[int], mode: str, order: str) -> Tensor:
    """Rows ``[N, C * bins]`` of ``boxes`` on ``cells``, in the type of ``cells``."""
    channels, bins = cells.shape[1], count_bins(levels)
    out = cells.new_empty(len(boxes), channels * bins)
    before, made_from = _before(levels), parents(levels)
    for own, n in enumerate(levels):
        side = _side(n)
        block = _block(channels, side, 2048)
        grid = (len(boxes), triton.cdiv(channels, block))
        given = (cells, boxes, out, channels, bins, before[own], n, side, block, order == "bins")
        if mode == "mean":
            _mean_kernel[grid](*given)
        elif made_from[own] == own:
            derived = _made_from(own, levels, made_from, before)
            _max_kernel[grid](*given, derived, len(derived) // 3)
    return out


def _made_from(
    own: int, levels: Sequence[int], made_from: Sequence[int], before: Sequence[int]
) -> tuple[int, ...]:
    """For each level whose chain of origins ends at ``own`` what `_max_kernel` must know."""
    result: list[int] = []
    for i, n in enumerate(levels):
        root = i
        while made_from[root] != root:
            root = made_from[root]
        if root == own and i != own:
            result += [n, _side(n), before[i]]
    return tuple(result)


def pool_backward(
    grad: Tensor,
    boxes: Tensor,
    cells: Tensor,
    owners: Tensor,
    sizes: Sequence[tuple[int, int]],
    levels: Sequence[int],
    mode: str,
    order: str,
) -> Tensor:
    """The gradient of `pool` for ``cells``, float32 ``[S, C]``.

    Where a gradient is not finite, the whole channel of its map is not a number.

    Args:
        grad: ``[N, C * bins]``.
        boxes: int64 ``[N, 7]``, as in `pool`.
        cells: ``[S, C]``.
        owners: int64 ``[N]``, the map of each box.
        sizes: height and width of each map.
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.
        order: ``"channels"`` or ``"bins"``.
    """
    channels, bins, before = cells.shape[1], count_bins(levels), _before(levels)
    # Sums along rows and columns need one row and one column more.
    more = 1 if mode == "mean" else 0
    counts = torch.tensor([(h + more) * (w + more) for h, w in sizes], device=grad.device)
    boxes = boxes.clone()
    boxes[:, 0] = (counts.cumsum(0) - counts)[owners]
    sums = torch.zeros(
        sum((h + more) * (w + more) for h, w in sizes), channels, dtype=torch.int64, device=grad.device
    )
    odd = torch.zeros(len(sizes), channels, dtype=torch.int8, device=grad.device)
    scale = _scale(grad, len(boxes) * bins)
    given = grad.contiguous()
    for own, n in enumerate(levels):
        side = _side(n)
        block = _block(channels, side, 2048)
        grid = (len(boxes), triton.cdiv(channels, block))
        rest = (given, sums, odd, scale, channels, bins, before[own], n, side, block, order == "bins")
        if mode == "mean":
            _mean_gradient_kernel[grid](boxes, owners, *rest)
        else:
            _max_gradient_kernel[grid](cells, boxes, owners, *rest)
    if more:
        sums = _sum_up(sums, sizes)
    marks = torch.where(odd != 0, float("nan"), 0.0)
    lengths = torch.tensor([h * w for h, w in sizes], device=grad.device)
    return (sums.double() / scale).float() + marks.repeat_interleave(lengths, 0, output_size=len(cells))


def _scale(grad: Tensor, additions: int) -> Tensor:
    """The power of two, float64 ``[1]``, by which no sum of so many gradients leaves 63 bits."""
    largest = torch.where(grad.isfinite(), grad, 0).abs().amax().double().clamp(min=2.0**-140)
    room = 61 - math.ceil(math.log2(additions + 1))
    return torch.exp2(room - torch.ceil(torch.log2(largest))).reshape(1)


def _sum_up(sums: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Running sums along the rows and columns of each map, without their last row and column."""
    parts = sums.split([(h + 1) * (w + 1) for h, w in sizes])
    return torch.cat(
        [
            part.view(h + 1, w + 1, -1).cumsum(0).cumsum(1)[:-1, :-1].flatten(0, 1)
            for part, (h, w) in zip(parts, sizes, strict=True)
        ]
    )

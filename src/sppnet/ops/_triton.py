"""Pyramid pooling on a GPU: the forward kernels, in Triton.

Maps come as one tensor ``cells`` ``[S, C]``, cell by cell, whatever their sizes. ``boxes`` int32 ``[N, 8]``
says for each box: its map; the first row of that map in ``cells``; by how much more that would be were each
map one row and one column larger; the map's width; x0, y0, x1, y1, all within the map. Where the boxes are
the whole maps of a batch, there is no table: heights and widths are given.

A program is one warp: one box and as many channels as there are lanes, or twice as many of 16 bits. All bins
of a level stay in its registers, from which the levels that divide it are made, as on the CPU.
"""

# What is here is run by Triton's compiler, whose types basedpyright cannot follow, and which knows no
# stars in tuples, no loop without its variable and no constant first in an `and`.
# ruff: noqa: RUF005, B007, SIM102
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sppnet.ops.bins import count_bins, parents

LARGEST = 8
"""Bins a side of the largest level that registers hold; larger ones are pooled bin by bin."""
COLUMNS = 8
"""Numbers that tell of a box."""
_TABLE_BYTES = 512 << 20
"""Tables of maxima take no more memory than this."""
_CHECKED = 128
"""Regions that a program checks."""
CHANNELS, CELLS = 32, 16
"""Channels and cells of a program that fills tables, or turns cells into maps."""


def chunks(size: int, part: int) -> int:
    """How many parts of ``part`` hold ``size``: Triton's own takes microseconds."""
    return -(-size // part)


_launched: dict[tuple[object, ...], Any] = {}


def launch(
    kernel: Any,
    programs: int,
    args: tuple[object, ...],
    form: tuple[object, ...],
    warps: int,
    registers: int | None = None,
) -> None:
    """Launch a kernel; the second time of a ``form``, without Triton's search for the code to run.

    Args:
        kernel: none of whose whole numbers are specialized, but C.
        programs: how many.
        args: the kernel's arguments, all of them.
        form: what the code depends on: the device, types, alignments, C and what is constant.
        warps: of each program.
        registers: the most that a lane may take, of NVIDIA's; None for as many as the compiler likes.
    """
    key = (id(kernel), form, warps)
    known = _launched.get(key)
    if known is not None:
        known[(programs, 1, 1)](*args)
        return
    options = {} if registers is None or torch.version.hip else {"maxnreg": registers}
    made = kernel[(programs, 1, 1)](*args, num_warps=warps, **options)
    if made is not None:  # the interpreter makes nothing
        _launched[key] = made


def form_of(read: Tensor, channels: int, *constants: object) -> tuple[object, ...]:
    """What code depends on that reads ``read``, beside memory just allocated, which is aligned."""
    aligned = read.data_ptr() % 16 == 0
    return (read.device, read.dtype, aligned, channels == 1, channels % 16 == 0, *constants)


def unit_step(maps: Tensor) -> str:
    """Which of a batch's steps is known to be 1, if any."""
    return "x" if maps.stride(3) == 1 else "c" if maps.stride(1) == 1 else ""


# Preparing.


@triton.jit
def _check(pid, regions, ends, boxes, bad, N, B, H, W, BLOCK: tl.constexpr, TOLD: tl.constexpr):
    """Boxes of regions ``[N, 4]``, clamped to their maps; if ``TOLD``, ``bad`` becomes 1 if any had to be.

    ``ends`` ``[B]`` holds the number of regions up to the end of each map's.
    """
    r = pid * BLOCK + tl.arange(0, BLOCK)
    there = r < N
    at = regions + r.to(tl.int64) * 4
    x0 = tl.load(at, mask=there, other=0).to(tl.int64)
    y0 = tl.load(at + 1, mask=there, other=0).to(tl.int64)
    x1 = tl.load(at + 2, mask=there, other=1).to(tl.int64)
    y1 = tl.load(at + 3, mask=there, other=1).to(tl.int64)
    if TOLD:
        good = (x0 >= 0) & (y0 >= 0) & (x1 > x0) & (y1 > y0) & (x1 <= W) & (y1 <= H)
        wrong = tl.max((there & (good == 0)).to(tl.int32), 0)
        tl.store(bad, wrong, mask=wrong != 0)
    owner = tl.zeros([BLOCK], tl.int32)
    for b in range(B - 1):
        owner += (r >= tl.load(ends + b)).to(tl.int32)
    x0, y0 = tl.minimum(tl.maximum(x0, 0), W - 1), tl.minimum(tl.maximum(y0, 0), H - 1)
    x1, y1 = tl.minimum(tl.maximum(x1, x0 + 1), W), tl.minimum(tl.maximum(y1, y0 + 1), H)
    to = boxes + r.to(tl.int64) * 8
    tl.store(to, owner, mask=there)
    tl.store(to + 1, owner * H * W, mask=there)
    tl.store(to + 2, owner * (H + W + 1), mask=there)
    tl.store(to + 3, tl.zeros([BLOCK], tl.int32) + W, mask=there)
    tl.store(to + 4, x0.to(tl.int32), mask=there)
    tl.store(to + 5, y0.to(tl.int32), mask=there)
    tl.store(to + 6, x1.to(tl.int32), mask=there)
    tl.store(to + 7, y1.to(tl.int32), mask=there)


@triton.jit
def tile(pid, C, H, W, s_map, s_c, s_y, s_x, UNIT: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr):
    """Channels, cells and map of a program of many, where the map begins, and its steps."""
    tiles, blocks = (H * W + CELLS - 1) // CELLS, (C + BLOCK - 1) // BLOCK
    cell = pid % tiles * CELLS + tl.arange(0, CELLS)
    c = pid // tiles % blocks * BLOCK + tl.arange(0, BLOCK)
    owner = (pid // (tiles * blocks)).to(tl.int64)
    channel = c * (1 if UNIT == "c" else s_c)
    return c, cell, owner, owner * s_map + channel, s_y, 1 if UNIT == "x" else s_x


@triton.jit
def _greater(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _tabulate(
    pid, maps, tables, S, C, H, W, s_map, s_c, s_y, s_x,
    UNIT: tl.constexpr, DOUBLINGS: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """For i and j up to ``DOUBLINGS`` the maxima of 2^i rows and 2^j columns from each cell on.

    Near the lower and right edges of a map, where that would leave it, cells are met twice.
    """
    c, cell, owner, begin, s_y, s_x = tile(pid, C, H, W, s_map, s_c, s_y, s_x, UNIT, BLOCK, CELLS)
    there = (c < C)[:, None] & (cell < H * W)[None, :]
    y, x = cell // W, cell % W
    source = maps + begin[:, None]
    place = (owner * H * W + cell)[None, :] * C + c[:, None]
    lines = ()
    for down in tl.static_range(1 << DOUBLINGS):
        row = tl.minimum(y + down, H - 1) * s_y
        singles = ()
        for right in tl.static_range(1 << DOUBLINGS):
            at = row + tl.minimum(x + right, W - 1) * s_x
            singles = singles + (tl.load(source + at[None, :], mask=there, other=0.0).to(tl.float32),)
        lines = lines + (singles,)
    for j in tl.static_range(DOUBLINGS + 1):
        columns = ()
        for down in tl.static_range(1 << DOUBLINGS):
            best = lines[down][0]
            for right in tl.static_range(1, 1 << j):
                best = _greater(best, lines[down][right])
            columns = columns + (best,)
        for i in tl.static_range(DOUBLINGS + 1):
            best = columns[0]
            for down in tl.static_range(1, 1 << i):
                best = _greater(best, columns[down])
            to = tables + (i * (DOUBLINGS + 1) + j) * tl.cast(S, tl.int64) * C + place
            tl.store(to, best.to(tables.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["S", "H", "W", "s_map", "s_c", "s_y", "s_x", "N", "B", "CHECKS"])
def _prepare_kernel(
    maps, tables, regions, ends, boxes, bad, S, C, H, W, s_map, s_c, s_y, s_x, N, B, CHECKS,
    UNIT: tl.constexpr, DOUBLINGS: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr,
    CHECKED: tl.constexpr, TOLD: tl.constexpr,
):  # fmt: skip
    """The first ``CHECKS`` programs check ``CHECKED`` regions each, the others fill tables of maxima."""
    pid = tl.program_id(0)
    if CHECKED > 0:
        if pid < CHECKS:
            _check(pid, regions, ends, boxes, bad, N, B, H, W, CHECKED, TOLD)
    if DOUBLINGS > 0:
        if pid >= CHECKS:
            _tabulate(
                pid - CHECKS, maps, tables, S, C, H, W, s_map, s_c, s_y, s_x, UNIT, DOUBLINGS, BLOCK, CELLS
            )


class Regions(NamedTuple):
    """Regions on the device, not yet checked."""

    rows: Tensor
    """``[N, 4]``, contiguous, integers of any width."""
    ends: Tensor | None
    """int64 ``[B]``: the number of regions up to the end of each map's; None for one map."""
    bad: Tensor | None
    """int32, one element that the device can write: set to 1 if any region is not inside its map."""


def prepare(maps: Tensor, boxes: Tensor | Regions | None, doublings: int) -> tuple[Tensor, Tensor | None]:
    """What `pool` reads: maps cell by cell, with tables of maxima, and boxes; all regions within the maps.

    Args:
        maps: ``[B, C, H, W]``.
        boxes: int32 ``[N, 8]``, or regions of which they are to be made, or None for the whole maps.
        doublings: 0 for no tables.

    Returns:
        Maxima of 2^i rows and 2^j columns, ``[(doublings + 1)^2, S, C]``, i slower than j, or for 0 the
        cells ``[S, C]``; and the boxes.
    """
    batch, channels, height, width = maps.shape
    cells = batch * height * width
    rows, ends, bad, checks = maps, maps, maps, 0
    if not isinstance(boxes, Regions):
        table = boxes
    else:
        rows, ends = boxes.rows, boxes.rows if boxes.ends is None else boxes.ends
        checks = chunks(rows.shape[0], _CHECKED)
        table = torch.empty(rows.shape[0], COLUMNS, dtype=torch.int32, device=maps.device)
        bad = table if boxes.bad is None else boxes.bad
    if doublings == 0:
        read, tiles = cells_of(maps), 0
    else:
        if not maps.is_contiguous() and _span(maps) >= 2**31:
            maps = maps.contiguous()  # the kernel steps within a map in 32 bits
        read = maps.new_empty((doublings + 1) ** 2, cells, channels)
        tiles = chunks(height * width, CELLS) * chunks(channels, CHANNELS) * batch
    if checks + tiles:
        told = isinstance(boxes, Regions) and boxes.bad is not None
        constants = (unit_step(maps), doublings, CHANNELS, CELLS, _CHECKED if checks else 0, told)
        at = (maps, read, rows, ends, maps if table is None else table, bad)
        steps = maps.stride() if doublings else (0, 0, 0, 0)
        sizes = (cells, channels, height, width, *steps, rows.shape[0], batch, checks)
        given = (rows.dtype, rows.data_ptr() % 16 == 0, ends is rows, steps[0] < 2**31)
        form = form_of(maps, channels, *given, constants)
        launch(_prepare_kernel, checks + tiles, (*at, *sizes, *constants), form, 4)
    return read, table


def _span(maps: Tensor) -> int:
    """How far apart a map's first and last number are."""
    return sum((size - 1) * step for size, step in zip(maps.shape[1:], maps.stride()[1:], strict=True))


def cells_of(maps: Tensor) -> Tensor:
    """All maps of a batch cell by cell, ``[S, C]``, contiguous; no copy of a batch that is channels_last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).contiguous()


# Pooling.


@triton.jit
def unit(C, BLOCK: tl.constexpr):
    """The box and the channels of this program."""
    blocks = (C + BLOCK - 1) // BLOCK
    return tl.program_id(0) // blocks, (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def box_of(boxes, r, H, W, WHOLE: tl.constexpr):
    """A box's map, the map's first cell, that in larger maps, the map's width, and the corners."""
    if WHOLE:
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
def _stack(values, N: tl.constexpr):
    """N vectors ``[BLOCK]`` side by side, ``[BLOCK, N]``; N a power of two."""
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
def _write(out, values, c, C, BINS: tl.constexpr, BY_BIN: tl.constexpr):
    """Write a level's bins at ``out``, where the level begins in a row.

    By channel, they are put side by side, repeated up to a power of two, which is not written: one store
    then writes whole channels, neighbours in memory.
    """
    if BY_BIN:
        for i in tl.static_range(BINS):
            tl.store(out + i * C + c, values[i].to(out.dtype.element_ty), mask=c < C, cache_modifier=".cs")
    else:
        SIDE: tl.constexpr = triton.next_power_of_2(BINS)
        bin = tl.arange(0, SIDE)[None, :]
        some = values
        for i in tl.static_range(SIDE - BINS):
            some = some + (values[i],)
        made = _stack(some, SIDE).to(out.dtype.element_ty)
        tl.store(
            out + c[:, None] * BINS + bin, made, mask=(c < C)[:, None] & (bin < BINS), cache_modifier=".cs"
        )


@triton.jit
def _derive(best, LEVEL: tl.constexpr, N: tl.constexpr):
    """From the maxima of a level those of level N, which divides it."""
    TIMES: tl.constexpr = LEVEL // N
    made = ()
    for a in tl.static_range(N):
        for b in tl.static_range(N):
            value = best[a * TIMES * LEVEL + b * TIMES]
            for i in tl.static_range(TIMES):
                for j in tl.static_range(TIMES):
                    value = _greater(value, best[(a * TIMES + i) * LEVEL + b * TIMES + j])
            made = made + (value,)
    return made


@triton.jit(do_not_specialize=["S", "BINS", "before", "H", "W"])
def _max_kernel(
    tables, boxes, out, S, C, BINS, before, H, W,
    WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK: tl.constexpr, BY_BIN: tl.constexpr,
    EVEN: tl.constexpr, DOUBLINGS: tl.constexpr, DERIVED: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """A level's maxima, then the levels that are made from them.

    Each bin is covered, twice in places, by blocks of 2^i x 2^j cells, read from ``tables``: the largest
    that fit into the smallest bin. ``EVEN``: no program has lanes without a channel. ``DERIVED`` holds
    for each derived level its bins a side and the bins before it.
    """
    r, c = unit(C, BLOCK)
    _, first, _, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, WHOLE)
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
        lefts = lefts + (x0 + k * across // LEVEL,)
        rights = rights + (x0 + ((k + 1) * across + LEVEL - 1) // LEVEL - wide,)
        tops = tops + (y0 + k * down // LEVEL,)
        bottoms = bottoms + (y0 + ((k + 1) * down + LEVEL - 1) // LEVEL - high,)
    best = ()
    for k in tl.static_range(LEVEL * LEVEL):
        best = best + (tl.full([BLOCK], float("-inf"), tl.float32),)
    # No bin has more than one cell more than the smallest.
    for dy in range(0, low + (down % LEVEL != 0).to(tl.int32), high):
        for dx in range(0, narrow + (across % LEVEL != 0).to(tl.int32), wide):
            columns = ()
            for b in tl.static_range(LEVEL):
                columns = columns + (tl.minimum(lefts[b] + dx, rights[b]) * C,)
            better = ()
            for a in tl.static_range(LEVEL):
                line = tl.minimum(tops[a] + dy, bottoms[a]) * width * C
                for b in tl.static_range(LEVEL):
                    at = table + (line + columns[b]) + c
                    value = tl.load(at) if EVEN else tl.load(at, mask=c < C, other=0.0)
                    better = better + (_greater(best[a * LEVEL + b], value.to(tl.float32)),)
            best = better
    row = out + r.to(tl.int64) * C * BINS
    _write(row + before * C, best, c, C, LEVEL * LEVEL, BY_BIN)
    for d in tl.static_range(COUNT):
        made = _derive(best, LEVEL, DERIVED[2 * d])
        _write(row + DERIVED[2 * d + 1] * C, made, c, C, DERIVED[2 * d] * DERIVED[2 * d], BY_BIN)


@triton.jit(do_not_specialize=["BINS", "before", "H", "W"])
def _bin_kernel(
    cells, boxes, out, C, BINS, before, H, W,
    WHOLE: tl.constexpr, LEVEL: tl.constexpr, BLOCK: tl.constexpr, BY_BIN: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """A level of any size, bin by bin: maxima or means."""
    r, c = unit(C, BLOCK)
    _, first, _, width, x0, y0, x1, y1 = box_of(boxes, r, H, W, WHOLE)
    origin = cells + first * C + c
    row = out + r.to(tl.int64) * C * BINS + before * C
    for a in range(LEVEL):
        top, bottom = y0 + a * (y1 - y0) // LEVEL, y0 + ((a + 1) * (y1 - y0) + LEVEL - 1) // LEVEL
        for b in range(LEVEL):
            left, right = x0 + b * (x1 - x0) // LEVEL, x0 + ((b + 1) * (x1 - x0) + LEVEL - 1) // LEVEL
            made = tl.full([BLOCK], 0.0 if MEAN else float("-inf"), tl.float32)
            for y in range(top, bottom):
                for x in tl.range(left, right, loop_unroll_factor=4):
                    value = tl.load(origin + (y * width + x) * C, mask=c < C, other=0.0).to(tl.float32)
                    made = made + value if MEAN else _greater(made, value)
            if MEAN:
                made = made / ((bottom - top) * (right - left)).to(tl.float32)
            place = (a * LEVEL + b) * C + c if BY_BIN else c * (LEVEL * LEVEL) + a * LEVEL + b
            tl.store(row + place, made.to(out.dtype.element_ty), mask=c < C)


class Level(NamedTuple):
    """What is pooled in one launch."""

    bins: int
    """Bins a side."""
    before: int
    """Bins of the levels before it."""
    derived: tuple[int, ...] | None
    """For each level that is made from it, its bins a side and the bins before it; None if bin by bin."""


@cache
def plan(levels: tuple[int, ...], mode: str) -> tuple[Level, ...]:
    """The launches for a pyramid: for maxima only those levels that are made from no other."""
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


def doublings(maps: Tensor, boxes: int, levels: Sequence[int]) -> int:
    """How often tables of maxima should double; 0 where filling them costs more than they spare."""
    held = [n for n in levels if n <= LARGEST]
    batch, _, height, width = maps.shape
    cells = batch * height * width
    if not held or boxes * max(held) ** 2 < 8 * cells:
        return 0
    return 2 if 9 * maps.numel() * maps.element_size() <= _TABLE_BYTES else 0


def lanes(channels: int, dtype: torch.dtype) -> int:
    """Channels of a program: a warp's, two of 16 bits in each lane."""
    return min(1 << (channels - 1).bit_length(), 32 if dtype.itemsize == 4 else 64)


def pool(
    maps: Tensor, read: Tensor, boxes: Tensor | None, count: int, levels: Sequence[int], mode: str, order: str
) -> Tensor:
    """Rows ``[N, C * bins]`` of boxes, in the type of the maps.

    Args:
        maps: ``[B, C, H, W]``.
        read: cells or tables of the maps, from `prepare`.
        boxes: int32 ``[N, 8]``, or None for the whole maps.
        count: N.
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.
        order: ``"channels"`` or ``"bins"``.
    """
    batch, channels, height, width = maps.shape
    bins = count_bins(levels)
    out = maps.new_empty(count, channels * bins)
    block = lanes(channels, maps.dtype)
    programs = chunks(channels, block) * count
    at = (read, out if boxes is None else boxes, out)
    doubled = 2 if read.ndim == 3 else 0
    for n, before, derived in plan(tuple(levels), mode):
        sizes = (channels, bins, before, height, width)
        constants: tuple[object, ...] = (boxes is None, n, block, order == "bins")
        if derived is None:
            constants += (mode == "mean",)
            form = form_of(read, channels, constants)
            launch(_bin_kernel, programs, (*at, *sizes, *constants), form, 1)
        else:
            constants += (channels % block == 0, doubled, derived, len(derived) // 2)
            form = form_of(read, channels, constants)
            args = (*at, batch * height * width, *sizes, *constants)
            # More registers than this leave too few programs at work; more bins than those of 6 need more.
            launch(_max_kernel, programs, args, form, 1, 128 if n <= 6 else None)
    return out

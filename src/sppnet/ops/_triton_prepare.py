"""Pyramid pooling on a GPU: launching kernels, and what the pooling kernels read, prepared by one of them.

Maps are read as one tensor ``cells`` ``[S, C]``, cell by cell, whatever their sizes, or as tables of maxima
of several cells. ``boxes`` int32 ``[N, 8]`` says for each box: its map; the first row of that map in
``cells``; by how much more that would be were each map one row and one column larger; the map's width; x0,
y0, x1, y1, all within the map. Where the boxes are the whole maps of a batch, there is no table: heights and
widths are given.
"""

# What is here is run by Triton's compiler, whose types basedpyright cannot follow, and which knows no
# stars in tuples and no constant first in an `and`.
# ruff: noqa: RUF005, SIM102
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

CHANNELS, CELLS = 32, 16
"""Channels and cells of a program that fills tables, or turns cells into maps."""
_COLUMNS = 8
"""Numbers that tell of a box."""
_CHECKED = 128
"""Regions that a program checks."""


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
def tile(pid, C, H, W, s_map, s_c, s_x, UNIT: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr):
    """Channels, cells and map of a program of many, where the channels begin, and the step of columns."""
    tiles, blocks = (H * W + CELLS - 1) // CELLS, (C + BLOCK - 1) // BLOCK
    cell = pid % tiles * CELLS + tl.arange(0, CELLS)
    c = pid // tiles % blocks * BLOCK + tl.arange(0, BLOCK)
    owner = (pid // (tiles * blocks)).to(tl.int64)
    channel = c * (1 if UNIT == "c" else s_c)
    return c, cell, owner, owner * s_map + channel, 1 if UNIT == "x" else s_x


@triton.jit
def greater(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _tabulate(
    pid, maps, tables, S, C, H, W, s_map, s_c, s_y, s_x,
    UNIT: tl.constexpr, DOUBLINGS: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """For i and j up to ``DOUBLINGS`` the maxima of 2^i rows and 2^j columns from each cell on.

    Near the lower and right edges of a map, where that would leave it, cells are met twice.
    """
    c, cell, owner, begin, s_x = tile(pid, C, H, W, s_map, s_c, s_x, UNIT, BLOCK, CELLS)
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
                best = greater(best, lines[down][right])
            columns = columns + (best,)
        for i in tl.static_range(DOUBLINGS + 1):
            best = columns[0]
            for down in tl.static_range(1, 1 << i):
                best = greater(best, columns[down])
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
    """Regions on the device, which clamps them to their maps."""

    rows: Tensor
    """``[N, 4]``, contiguous, integers of any width."""
    ends: Tensor | None
    """int64 ``[B]``: the number of regions up to the end of each map's; None for one map."""
    bad: Tensor | None
    """int32, one element that the device can write: set to 1 if any region had to be; None to tell nobody."""


def prepare(maps: Tensor, boxes: Tensor | Regions | None, doublings: int) -> tuple[Tensor, Tensor | None]:
    """What `sppnet.ops._triton.pool` reads: maps cell by cell or tables of maxima, and boxes within the maps.

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
        table = torch.empty(rows.shape[0], _COLUMNS, dtype=torch.int32, device=maps.device)
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

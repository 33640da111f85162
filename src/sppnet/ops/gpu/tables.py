"""Pyramid pooling on a GPU: the tables of the pooling kernels, computed by one kernel.

Maps of any sizes are read as one tensor ``cells`` ``[S, C]``, cell by cell, or as tables of maxima of several
cells. ``boxes`` int32 ``[N, 8]`` has for each box: its map; the first row of that map in ``cells``; the
increase of this row if each map had one more row and column; the width of the map; x0, y0, x1, y1, inside the
map. If the boxes are the whole maps of a batch, there is no table, but heights and widths are given.
"""

# This code is compiled by Triton, whose types basedpyright cannot infer, and which does not support
# stars in tuples and constants as first operand of `and`.
# ruff: noqa: RUF005, SIM102
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sppnet.ops.gpu.launch import Launch, chunks

BLOCK_CHANNELS, BLOCK_CELLS = 32, 16
"""Channels and cells per program that fills tables of maxima, or converts cells to maps."""
_COLUMNS = 8
"""Fields of a box."""
_BLOCK_REGIONS = 128
"""Regions per program that checks them."""


def unit_step(steps: Sequence[int]) -> str:
    """Return which stride of a batch is 1, if any: ``"x"`` or ``"c"``."""
    return "x" if steps[3] == 1 else "c" if steps[1] == 1 else ""


@triton.jit
def _check(
    pid, regions, ends, boxes, bad, N, B, H, W, BLOCK_REGIONS: tl.constexpr, HAS_FLAG: tl.constexpr
):  # fmt: skip
    """Convert regions ``[N, 4]`` to boxes, clamped to their maps.

    With ``HAS_FLAG``, ``bad`` is set to 1 if any region was clamped.
    ``ends`` ``[B]`` is the cumulative number of regions per map.
    """
    r = pid * BLOCK_REGIONS + tl.arange(0, BLOCK_REGIONS)
    there = r < N
    at = regions + r.to(tl.int64) * 4
    x0 = tl.load(at, mask=there, other=0).to(tl.int64)
    y0 = tl.load(at + 1, mask=there, other=0).to(tl.int64)
    x1 = tl.load(at + 2, mask=there, other=1).to(tl.int64)
    y1 = tl.load(at + 3, mask=there, other=1).to(tl.int64)
    if HAS_FLAG:
        good = (x0 >= 0) & (y0 >= 0) & (x1 > x0) & (y1 > y0) & (x1 <= W) & (y1 <= H)
        wrong = tl.max((there & (good == 0)).to(tl.int32), 0)
        tl.store(bad, wrong, mask=wrong != 0)
    owner = tl.zeros([BLOCK_REGIONS], tl.int32)
    for b in range(B - 1):
        owner += (r >= tl.load(ends + b)).to(tl.int32)
    x0, y0 = tl.minimum(tl.maximum(x0, 0), W - 1), tl.minimum(tl.maximum(y0, 0), H - 1)
    x1, y1 = tl.minimum(tl.maximum(x1, x0 + 1), W), tl.minimum(tl.maximum(y1, y0 + 1), H)
    to = boxes + r.to(tl.int64) * 8
    tl.store(to, owner, mask=there)
    tl.store(to + 1, owner * H * W, mask=there)
    tl.store(to + 2, owner * (H + W + 1), mask=there)
    tl.store(to + 3, tl.zeros([BLOCK_REGIONS], tl.int32) + W, mask=there)
    tl.store(to + 4, x0.to(tl.int32), mask=there)
    tl.store(to + 5, y0.to(tl.int32), mask=there)
    tl.store(to + 6, x1.to(tl.int32), mask=there)
    tl.store(to + 7, y1.to(tl.int32), mask=there)


@triton.jit
def tile(
    pid, C, H, W, s_map, s_c, s_x, UNIT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_CELLS: tl.constexpr
):  # fmt: skip
    """Return channels, cells and map of this program, offsets of the channels, and the stride of columns."""
    tiles, blocks = (H * W + BLOCK_CELLS - 1) // BLOCK_CELLS, (C + BLOCK_C - 1) // BLOCK_C
    cell = pid % tiles * BLOCK_CELLS + tl.arange(0, BLOCK_CELLS)
    c = pid // tiles % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    owner = (pid // (tiles * blocks)).to(tl.int64)
    channel = c * (1 if UNIT == "c" else s_c)
    return c, cell, owner, owner * s_map + channel, 1 if UNIT == "x" else s_x


@triton.jit
def greater(a, b):
    """Return the larger of two numbers, NaN if one is NaN, or of two keys."""
    if a.dtype == tl.int64:
        return tl.maximum(a, b)
    else:
        return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _key(values, cell):
    """Combine numbers and cells to ordered integers: NaN is largest, and of equals the first cell.

    The upper 32 bits are in the order of the numbers, with equal zeros; `cell_of` extracts the cell from the
    lower.
    """
    wide = values + 0.0
    bits = wide.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = tl.where(wide != wide, 0x7FFFFFFF, tl.where(key == -1, 0, key))
    return (key.to(tl.int64) << 32) | (0x7FFFFFFF - cell)


@triton.jit
def cell_of(key):
    """Return the cell of a key."""
    return 0x7FFFFFFF - (key & 0x7FFFFFFF)


@triton.jit
def _tabulate(
    pid, maps, tables, S, C, H, W, s_map, s_c, s_y, s_x,
    UNIT: tl.constexpr, DOUBLINGS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_CELLS: tl.constexpr,
):  # fmt: skip
    """Compute maxima of 2^i rows and 2^j columns from each cell on, for i and j up to ``DOUBLINGS``.

    At the lower and right edges of a map, cells inside it are repeated. Tables of int64 have keys.
    """
    c, cell, owner, begin, s_x = tile(pid, C, H, W, s_map, s_c, s_x, UNIT, BLOCK_C, BLOCK_CELLS)
    there = (c < C)[:, None] & (cell < H * W)[None, :]
    y, x = cell // W, cell % W
    source = maps + begin[:, None]
    place = (owner * H * W + cell)[None, :] * C + c[:, None]
    lines = ()
    for down in tl.static_range(1 << DOUBLINGS):
        row = tl.minimum(y + down, H - 1)
        singles = ()
        for right in tl.static_range(1 << DOUBLINGS):
            column = tl.minimum(x + right, W - 1)
            at = row * s_y + column * s_x
            value = tl.load(source + at[None, :], mask=there, other=0.0).to(tl.float32)
            if tables.dtype.element_ty == tl.int64:
                value = _key(value, (owner * H * W + row * W + column)[None, :])
            singles = singles + (value,)
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
    UNIT: tl.constexpr, DOUBLINGS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_CELLS: tl.constexpr,
    BLOCK_REGIONS: tl.constexpr, HAS_FLAG: tl.constexpr, HAS_TABLES: tl.constexpr,
):  # fmt: skip
    """Check ``BLOCK_REGIONS`` regions in each of ``CHECKS`` programs; others fill tables if ``HAS_TABLES``.

    Pointers:
        maps: ``[B, C, H, W]``, strides ``s_map``, ``s_c``, ``s_y``, ``s_x``.
        tables: ``[(DOUBLINGS + 1)^2, S, C]``, output.
        regions: integers ``[N, 4]``.
        ends: int64 ``[B]``, cumulative number of regions per map.
        boxes: int32 ``[N, 8]``, output.
        bad: int32 ``[1]``, output, if ``HAS_FLAG``.
    """
    pid = tl.program_id(0)
    if BLOCK_REGIONS > 0:
        if pid < CHECKS:
            _check(pid, regions, ends, boxes, bad, N, B, H, W, BLOCK_REGIONS, HAS_FLAG)
    if HAS_TABLES:
        if pid >= CHECKS:
            _tabulate(
                pid - CHECKS, maps, tables, S, C, H, W, s_map, s_c, s_y, s_x,
                UNIT, DOUBLINGS, BLOCK_C, BLOCK_CELLS,
            )  # fmt: skip


class Regions(NamedTuple):
    """Regions on the device, which clamps them to their maps."""

    rows: Tensor
    """``[N, 4]``, contiguous, integers of any width."""
    ends: Tensor | None
    """int64 ``[B]``: cumulative number of regions per map; None for one map."""


# Plain tuples, because creating a named tuple takes longer than the look-up of a cached plan.
Form = tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device, bool]
"""Properties of maps ``[B, C, H, W]`` that determine a plan: shape, strides, dtype, device, alignment."""
RegionsForm = tuple[int, torch.dtype, bool, bool, bool]
"""Properties of regions that determine a plan: number, dtype, alignment, whether they belong to one map, and
whether the device reports clamping."""


def aligned(memory: Tensor) -> bool:
    """Return whether the compiler may assume alignment, as for all newly allocated memory."""
    return memory.data_ptr() % 16 == 0


def form_of(maps: Tensor) -> Form:
    """Return the form of maps."""
    return maps.shape, maps.stride(), maps.dtype, maps.device, maps.data_ptr() % 16 == 0


def form_of_regions(regions: Regions, reports: bool) -> RegionsForm:
    """Return the form of regions."""
    rows, ends = regions
    return rows.shape[0], rows.dtype, rows.data_ptr() % 16 == 0, ends is None, reports


class Preparation(NamedTuple):
    """A plan of the tables of the pooling kernels."""

    launch: Launch | None
    tables: tuple[int, ...] | None
    """The shape of tables of maxima; None for cells."""
    dtype: torch.dtype
    """Dtype of the tables: that of the maps, or int64 for keys."""
    dense: bool
    """Whether the maps have to be contiguous."""


def preparation(form: Form, doublings: int | None, keys: bool, regions: RegionsForm | None) -> Preparation:
    """Plan the preparation of maps.

    Args:
        form: form of the maps.
        doublings: doublings of the tables of maxima; 0 for cells alone; None for neither.
        keys: whether tables hold keys instead of numbers.
        regions: form of the regions to check and convert to boxes; None for none.
    """
    shape, steps, maps_dtype, device, even = form
    batch, channels, height, width = shape
    cells, dense, filled = batch * height * width, False, None
    dtype = torch.int64 if keys else maps_dtype
    if doublings is not None and (doublings > 0 or keys):
        filled = ((doublings + 1) ** 2, cells, channels)
        # The kernel uses 32-bit offsets within a map.
        span = sum((size - 1) * step for size, step in zip(shape[1:], steps[1:], strict=True))
        if span >= 2**31:
            dense, steps = True, (channels * height * width, height * width, width, 1)
    if filled is None and regions is None:
        return Preparation(None, None, dtype, False)
    code: tuple[object, ...] = (maps_dtype, device, channels == 1, channels % 16 == 0)
    tiles = count = checks = 0
    if filled is None:
        steps, doublings = (0, 0, 0, 0), 0
    else:
        tiles = chunks(height * width, BLOCK_CELLS) * chunks(channels, BLOCK_CHANNELS) * batch
        code += (even or dense, keys, steps[0] < 2**31)
    if regions is not None:
        count, *rest = regions
        checks = chunks(count, _BLOCK_REGIONS)
        code += tuple(rest)
    reports = regions is not None and regions[-1]
    constants = (
        unit_step(steps),
        doublings,
        BLOCK_CHANNELS,
        BLOCK_CELLS,
        _BLOCK_REGIONS if checks else 0,
        reports,
        tiles > 0,
    )
    sizes = (cells, channels, height, width, *steps, count, batch, checks)
    launch = Launch(_prepare_kernel, checks + tiles, (*sizes, *constants), (*code, constants), 4)
    return Preparation(launch, filled, dtype, dense)


def prepare(
    plan: Preparation, stream: int, maps: Tensor, regions: Regions | None, bad: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the tables of the pooling kernels: cells or tables of maxima, and boxes clamped to the maps.

    Args:
        plan: preparation for maps and regions of this form.
        stream: from `stream_of`.
        maps: ``[B, C, H, W]``.
        regions: regions to convert to boxes.
        bad: int32, one element that the device can write: set to 1 if any region was clamped.

    Returns:
        Maxima of 2^i rows and 2^j columns, ``[(doublings + 1)^2, S, C]``, i slower than j, or the maps; and
        int32 boxes ``[N, 8]``, or the maps if there are no regions.
    """
    launch, tables, dtype, dense = plan
    if launch is None:
        return maps, maps
    if dense:
        maps = maps.contiguous()
    read = rows = ends = boxes = maps
    if tables is not None:
        read = maps.new_empty(tables) if dtype == maps.dtype else maps.new_empty(tables, dtype=dtype)
    if regions is not None:
        rows, ends = regions
        if ends is None:
            ends = rows
        boxes = torch.empty(rows.shape[0], _COLUMNS, dtype=torch.int32, device=maps.device)
    launch(stream, maps, read, rows, ends, boxes, rows if bad is None else bad)
    return read, boxes


def cells_of(maps: Tensor) -> Tensor:
    """Return all cells of a batch, ``[S, C]``, contiguous and aligned; rarely copied if channels_last."""
    cells = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).contiguous()
    return cells if aligned(cells) else cells.clone()

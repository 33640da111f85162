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

from collections.abc import Sequence
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


_found: dict[tuple[object, ...], tuple[Any, Any, Any]] = {}
KEPT = 1024
"""Of as many calls that differ it is kept what they launch."""


def stream_of(maps: Tensor) -> int:
    """The current stream of the device of the maps, as launches take it; 0 in the interpreter."""
    index = maps.get_device()
    return 0 if index < 0 else triton.runtime.driver.active.get_current_stream(index)


class Launch:
    """A launch of a kernel but for the memory that it reads and writes.

    Python around launches is most of what a call takes where little is pooled. So they are kept, and the
    second time done without Triton's search for the code to run, and what it calls for profilers.
    """

    def __init__(
        self,
        kernel: Any,
        programs: int,
        rest: tuple[object, ...],
        form: tuple[object, ...],
        warps: int,
        registers: int | None = None,
    ) -> None:
        """Plan a launch.

        Args:
            kernel: none of whose whole numbers are specialized, but C.
            programs: how many.
            rest: the kernel's arguments after its tensors.
            form: what the code depends on: the device, types, alignments, C and what is constant.
            warps: of each program.
            registers: the most that a lane may take, of NVIDIA's; None for as many as the compiler likes.
        """
        self._kernel, self._programs, self._rest = kernel, programs, rest
        self._key = (id(kernel), form, warps)
        self._options: dict[str, int] = {"num_warps": warps}
        if registers is not None and not torch.version.hip:
            self._options["maxnreg"] = registers
        self._run: tuple[Any, Any, Any] | None = _found.get(self._key)

    def __call__(self, stream: int, *memory: Tensor) -> None:
        """Launch it on the current device and its current stream."""
        if self._run is not None:
            run, function, metadata = self._run
            run(self._programs, 1, 1, stream, function, metadata, None, None, None, *memory, *self._rest)
            return
        made = self._kernel[(self._programs, 1, 1)](*memory, *self._rest, **self._options)
        if made is not None:  # the interpreter makes nothing
            _found[self._key] = self._run = made.run, made.function, made.packed_metadata


def unit_step(steps: Sequence[int]) -> str:
    """Which of a batch's steps is known to be 1, if any."""
    return "x" if steps[3] == 1 else "c" if steps[1] == 1 else ""


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
    """The larger of numbers, NaN where one is, or of keys."""
    if a.dtype == tl.int64:
        return tl.maximum(a, b)
    else:
        return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _key(values, cell):
    """Numbers and their cells as integers of one order: NaN is the largest, and of equals the first cell's.

    The upper 32 bits are ordered as numbers are, both zeros alike; `cell_of` finds the cell in the lower.
    """
    wide = values + 0.0
    bits = wide.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = tl.where(wide != wide, 0x7FFFFFFF, tl.where(key == -1, 0, key))
    return (key.to(tl.int64) << 32) | (0x7FFFFFFF - cell)


@triton.jit
def cell_of(key):
    """The cell that a key came from."""
    return 0x7FFFFFFF - (key & 0x7FFFFFFF)


@triton.jit
def _tabulate(
    pid, maps, tables, S, C, H, W, s_map, s_c, s_y, s_x,
    UNIT: tl.constexpr, DOUBLINGS: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """For i and j up to ``DOUBLINGS`` the maxima of 2^i rows and 2^j columns from each cell on.

    Near the lower and right edges of a map, where that would leave it, cells are met twice. Tables of int64
    hold keys.
    """
    c, cell, owner, begin, s_x = tile(pid, C, H, W, s_map, s_c, s_x, UNIT, BLOCK, CELLS)
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
    UNIT: tl.constexpr, DOUBLINGS: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr,
    CHECKED: tl.constexpr, TOLD: tl.constexpr, FILLED: tl.constexpr,
):  # fmt: skip
    """``CHECKS`` programs check ``CHECKED`` regions each, the others, if ``FILLED``, fill tables."""
    pid = tl.program_id(0)
    if CHECKED > 0:
        if pid < CHECKS:
            _check(pid, regions, ends, boxes, bad, N, B, H, W, CHECKED, TOLD)
    if FILLED:
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


# Plain tuples: a named one takes longer to make than to look up what is kept for it.
Form = tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device, bool]
"""What of maps ``[B, C, H, W]`` decides on launches: shape, steps, type, device, whether they are aligned."""
RegionsForm = tuple[int, torch.dtype, bool, bool, bool]
"""What of regions does: number, type, whether they are aligned, of one map, and whether it is to be told if
any had to be clamped."""


def aligned(memory: Tensor) -> bool:
    """Whether the compiler may take it for aligned, as all memory is that was just allocated."""
    return memory.data_ptr() % 16 == 0


def form_of(maps: Tensor) -> Form:
    """The form of maps."""
    return maps.shape, maps.stride(), maps.dtype, maps.device, maps.data_ptr() % 16 == 0


def form_of_regions(regions: Regions, told: bool) -> RegionsForm:
    """The form of regions."""
    rows, ends = regions
    return rows.shape[0], rows.dtype, rows.data_ptr() % 16 == 0, ends is None, told


class Preparation(NamedTuple):
    """How to make what the pooling kernels read."""

    launch: Launch | None
    tables: tuple[int, ...] | None
    """The shape of tables of maxima; None for cells."""
    dtype: torch.dtype
    """Of the tables: that of the maps, or int64 for keys."""
    dense: bool
    """Whether the maps have to be contiguous."""


def preparation(form: Form, doublings: int | None, keys: bool, regions: RegionsForm | None) -> Preparation:
    """Plan the preparation of maps.

    Args:
        form: of the maps.
        doublings: of tables of maxima; 0 for no tables, but cells; None for neither.
        keys: tables of keys instead of the numbers: of single cells, for 0.
        regions: of which boxes are to be made; None for none.
    """
    shape, steps, maps_dtype, device, even = form
    batch, channels, height, width = shape
    cells, dense, filled = batch * height * width, False, None
    dtype = torch.int64 if keys else maps_dtype
    if doublings is not None and (doublings > 0 or keys):
        filled = ((doublings + 1) ** 2, cells, channels)
        # The kernel steps within a map in 32 bits.
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
        tiles = chunks(height * width, CELLS) * chunks(channels, CHANNELS) * batch
        code += (even or dense, keys, steps[0] < 2**31)
    if regions is not None:
        count, *rest = regions
        checks = chunks(count, _CHECKED)
        code += tuple(rest)
    told = regions is not None and regions[-1]
    constants = (unit_step(steps), doublings, CHANNELS, CELLS, _CHECKED if checks else 0, told, tiles > 0)
    sizes = (cells, channels, height, width, *steps, count, batch, checks)
    launch = Launch(_prepare_kernel, checks + tiles, (*sizes, *constants), (*code, constants), 4)
    return Preparation(launch, filled, dtype, dense)


def prepare(
    plan: Preparation, stream: int, maps: Tensor, regions: Regions | None, bad: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the pooling kernels read: maps cell by cell or tables of maxima, and boxes within the maps.

    Args:
        plan: for such maps and regions.
        stream: from `stream_of`.
        maps: ``[B, C, H, W]``.
        regions: of which boxes are to be made.
        bad: int32, one element that the device can write: set to 1 if any region had to be clamped.

    Returns:
        Maxima of 2^i rows and 2^j columns, ``[(doublings + 1)^2, S, C]``, i slower than j, or the maps; and
        int32 boxes ``[N, 8]``, or where there are no regions, the maps.
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
    """All cells of a batch, ``[S, C]``, dense, aligned; no copy of most maps that are channels_last."""
    cells = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).contiguous()
    return cells if aligned(cells) else cells.clone()

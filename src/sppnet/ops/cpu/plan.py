"""The tables of kernels, and the choice of the fastest method of pooling.

See `sppnet.ops.cpu.args` for their fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from sppnet.ops.bins import count_bins
from sppnet.ops.cpu.args import (
    BOX_COLUMNS,
    BOX_CORNER,
    BOX_FIELDS,
    BOX_ROWS,
    EDGE_BYTES,
    MAP_ADDRESS,
    MAP_FIELDS,
    MAP_HEIGHT,
    MAP_WIDTH,
    UNIT_BOX,
    UNIT_BOX_STOP,
    UNIT_CHANNEL,
    UNIT_FIELDS,
    UNIT_MAP,
)
from sppnet.ops.cpu.edges import (
    WIDTH,
    Integers,
    bins_of,
    byte_edges,
    level_table,
    log2,
    region_edges,
    sides_up_to,
)

_TABLE_BYTES = 64 << 20
"""Maximum size in bytes of the tables of maxima of one thread."""

_PAPER = (6, 3, 2, 1)
"""The pyramid with specialised code."""

_LOAD, _ENTRY, _BIN, _PAPER_BIN = 2.2, 5.5, 8.0, -8.0
"""Measured processor cycles of a load and of an entry of a table, and the additional cycles of a bin by
tables; for the pyramid of the paper, this includes the gain of the specialised code, which requires
tables."""


@dataclass(frozen=True)
class Boxes:
    """Boxes sorted by map, at least one.

    Attributes:
        corners: ``[4, N]``, x0, y0, x1 and y1 in cells.
        sides: ``[2, N]``, widths and heights.
        counts: number of boxes per map.

    Coordinates are on the first axis, because numpy is slow with a last axis of 2, 3 or 4.
    """

    corners: Integers
    sides: Integers
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return self.corners.shape[1]

    def __getitem__(self, order: Integers) -> Boxes:
        """Select boxes, which must remain sorted by map."""
        return Boxes(self.corners.take(order, 1), self.sides.take(order, 1), self.counts)


@dataclass(frozen=True)
class Plan:
    """The tables of a call, which are shared and must not be written to.

    Attributes:
        maps, boxes, levels: the tables.
        counts: number of boxes per map.
        bins: number of bins of all levels.
        doublings: number of doublings of rows and of columns in the tables of a block.
        across: step along a row in bytes.
        edges: bin edges, to which ``boxes`` points.
        cells: number of cells of the largest map.
        all_cells: number of cells of all maps.
        whole: whether there is one box per map, which covers it.
        paper: whether the specialised code of the paper's pyramid applies.
    """

    maps: Integers
    boxes: Integers
    counts: tuple[int, ...]
    levels: Integers
    bins: int
    doublings: tuple[int, int]
    across: int
    edges: tuple[Integers, Integers]
    cells: int
    all_cells: int
    whole: bool
    paper: bool = False

    @cached_property
    def addresses(self) -> tuple[int, int, int]:
        """Return the addresses of maps, boxes and levels."""
        return self.maps.ctypes.data, self.boxes.ctypes.data, self.levels.ctypes.data

    @property
    def table_bytes(self) -> int:
        """Return the size of a block and its tables in bytes."""
        return self.cells * WIDTH * self.doublings[0] * self.doublings[1]


def _choose(
    boxes: Boxes, roots: tuple[int, ...], height: int, width: int, longest: tuple[int, int], bin_cost: float
) -> tuple[int, int]:
    """Choose the numbers of doublings of rows and columns by estimated time; 1 and 1 for no tables.

    ``longest`` is the length of the longest bins along rows and columns.
    """
    sums = sides_up_to(max(height, width), roots)[2]
    direct = _LOAD * int(sum(np.vdot(one[boxes.sides[0]], one[boxes.sides[1]]) for one in sums))
    ky, kx = (one.bit_length() for one in longest)
    while ky * kx * height * width * WIDTH > _TABLE_BYTES and ky * kx > 1:
        ky, kx = (ky - 1, kx) if ky >= kx else (ky, kx - 1)
    maps = len(boxes.counts)
    entries = height * width * (ky * kx - 1) * maps
    tabled = _ENTRY * entries + bin_cost * len(boxes) * count_bins(roots)
    return (ky, kx) if tabled < direct else (1, 1)


def map_table(maps: Sequence[Tensor] | Tensor) -> Integers:
    """Create a table of address, height, width and strides in bytes of each map ``[C, H, W]``."""
    if isinstance(maps, Tensor):
        return _batch_table(maps.data_ptr(), maps.shape, maps.stride(), maps.element_size())
    size = maps[0].element_size()
    rows = [[m.data_ptr(), *m.shape[1:], *(step * size for step in m.stride())] for m in maps]
    return np.array(rows, np.int64)


def _batch_table(address: int, shape: Sequence[int], stride: Sequence[int], size: int) -> Integers:
    steps = [step * size for step in stride]
    table = np.empty((shape[0], MAP_FIELDS), np.int64)
    table[:, MAP_ADDRESS] = address + np.arange(shape[0]) * steps[0]
    table[:, MAP_HEIGHT:] = [shape[2], shape[3], *steps[1:]]
    return table


def whole_plan(maps: Sequence[Tensor] | Tensor, levels: Sequence[int], mode: str) -> Plan:
    """Plan one box per map, which covers it."""
    derived = mode == "max"
    if isinstance(maps, Tensor):
        form = tuple(maps.shape), maps.stride(), maps.element_size()
        return _address_plan(maps.data_ptr(), form, tuple(levels), derived)
    map_rows = map_table(maps)
    table, roots = level_table(tuple(levels), derived)
    heights, widths = map_rows[:, MAP_HEIGHT], map_rows[:, MAP_WIDTH]
    columns = byte_edges(*bins_of(widths, roots), 1, WIDTH, 0)
    rows = byte_edges(*bins_of(heights, roots), 1, (widths * WIDTH)[:, None], 0)
    boxes = np.zeros((len(map_rows), BOX_FIELDS), np.int64)
    for field, edges in ((BOX_COLUMNS, columns), (BOX_ROWS, rows)):
        boxes[:, field] = edges.ctypes.data + edges.shape[1] * EDGE_BYTES * np.arange(len(map_rows))
    cells = heights * widths
    return Plan(
        map_rows,
        boxes,
        (1,) * len(map_rows),
        table,
        count_bins(levels),
        (1, 1),
        WIDTH,
        (columns, rows),
        int(cells.max()),
        int(cells.sum()),
        True,
    )


_Form = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides and bytes per element of a batch of maps."""


@lru_cache(maxsize=64)
def _address_plan(address: int, form: _Form, levels: tuple[int, ...], derived: bool) -> Plan:
    """Return the cached plan of a batch of whole maps; addresses repeat because memory is reused."""
    plan = _batch_plan(form, levels, derived)
    map_rows = plan.maps.copy()
    map_rows[:, MAP_ADDRESS] += address
    return replace(plan, maps=map_rows)


@lru_cache(maxsize=64)
def _batch_plan(form: _Form, levels: tuple[int, ...], derived: bool) -> Plan:
    """Return the cached plan of a batch of whole maps for the address 0."""
    count, _, height, width = form[0]
    table, roots = level_table(levels, derived)
    map_rows = _batch_table(0, *form)
    columns = byte_edges(*bins_of(np.array([width]), roots), 1, WIDTH, 0)
    rows = byte_edges(*bins_of(np.array([height]), roots), 1, width * WIDTH, 0)
    boxes = np.array([[0, columns.ctypes.data, rows.ctypes.data]] * count, np.int64)
    cells = height * width
    bins, edges = count_bins(levels), (columns, rows)
    return Plan(map_rows, boxes, (1,) * count, table, bins, (1, 1), WIDTH, edges, cells, count * cells, True)


def region_plan(maps: Tensor, boxes: Boxes, levels: Sequence[int], mode: str, paper: bool = False) -> Plan:
    """Plan ``boxes`` of ``maps`` ``[B, C, H, W]``; ``paper`` permits the specialised code."""
    table, roots = level_table(tuple(levels), mode == "max")
    height, width = maps.shape[2:]
    wide, tall = (sides_up_to(max(height, width), roots)[3][side] for side in boxes.sides.max(1).tolist())
    in_blocks = maps.shape[1] % (WIDTH // maps.element_size()) == 0
    paper = paper and in_blocks and mode == "max" and tuple(levels) == _PAPER
    cost = _PAPER_BIN if paper else _BIN
    doublings = _choose(boxes, roots, height, width, (tall, wide), cost) if mode == "max" else (1, 1)
    edges = region_edges(height, width, roots, doublings)
    lines = np.empty((len(boxes), BOX_FIELDS), np.int64)
    lines[:, BOX_CORNER] = boxes.corners[1] * (width * WIDTH) + boxes.corners[0] * WIDTH
    for field, sides, edge in zip((BOX_COLUMNS, BOX_ROWS), boxes.sides, edges, strict=True):
        lines[:, field] = sides * (edge.shape[1] * EDGE_BYTES) + edge.ctypes.data
    covered = doublings != (1, 1) and not (tall >> doublings[0] or wide >> doublings[1])
    across = 0 if covered else WIDTH << (doublings[1] - 1)
    map_rows, bins, cells = map_table(maps), count_bins(levels), height * width
    all_cells = len(maps) * cells
    return Plan(
        map_rows,
        lines,
        boxes.counts,
        table,
        bins,
        doublings,
        across,
        edges,
        cells,
        all_cells,
        False,
        paper and covered,
    )


def units_of(plan: Plan, channels: int, lanes: int, least: int) -> Integers:
    """Create units ``[U, 4]``: each block of each map, with boxes divided to get at least ``least`` units."""
    return _units(plan.counts, channels, lanes, 1 if plan.whole else least)


@lru_cache(maxsize=64)
def starts_of(counts: tuple[int, ...]) -> Integers:
    """Return the index of the first box of each map, ``[maps + 1]``."""
    return np.cumsum([0, *counts])


@lru_cache(maxsize=64)
def _units(counts: tuple[int, ...], channels: int, lanes: int, least: int) -> Integers:
    blocks = np.arange(0, channels, lanes)
    runs = 1
    if len(blocks) * len(counts) < least:
        runs = max(1, min(-(-least // max(1, len(blocks) * len(counts))), max(counts, default=0) // 128))
    starts = starts_of(counts)
    cuts = starts[:-1, None] + np.diff(starts)[:, None] * np.arange(runs + 1) // runs
    units = np.empty((len(counts), len(blocks), runs, UNIT_FIELDS), np.int64)
    units[..., UNIT_MAP] = np.arange(len(counts))[:, None, None]
    units[..., UNIT_CHANNEL] = blocks[:, None]
    units[..., UNIT_BOX], units[..., UNIT_BOX_STOP] = cuts[:, None, :-1], cuts[:, None, 1:]
    return units.reshape(-1, UNIT_FIELDS)


def weight_blocks(weight: Tensor, channels: int, levels: Sequence[int], lanes: int) -> Tensor:
    """Reorder a head ``[K, C * bins]`` to ``[blocks, fours, bins * parts, 4, 16]``, padded with zeros."""
    classes = weight.shape[0]
    # In numpy, because threads of torch would spin for a while on the cores of the kernels.
    given = weight.detach().to(torch.float32).numpy()
    split = np.split(given, np.cumsum([channels * n * n for n in levels])[:-1], 1)
    by_channel = np.concatenate([w.reshape(classes, channels, -1) for w in split], 2)
    bins, parts = by_channel.shape[2], lanes // 16
    fours, blocks = -(-classes // 4), -(-channels // lanes)
    padded = np.zeros((fours * 4, blocks * lanes, bins), np.float32)
    padded[:classes, :channels] = by_channel
    shaped = padded.reshape(fours, 4, blocks, parts, 16, bins).transpose(2, 0, 5, 3, 1, 4)
    return torch.from_numpy(np.ascontiguousarray(shaped).reshape(blocks, fours, bins * parts, 4, 16))


def near_order(boxes: Boxes) -> Integers:
    """Sort boxes by map, doublings and rows, so that consecutive boxes read neighbouring memory."""
    wide, tall = log2(boxes.sides)
    keys = (tall * 32 + wide) * (int(boxes.corners[1].max()) + 1) + boxes.corners[1]
    if len(boxes.counts) > 1:
        keys += np.repeat(np.arange(len(boxes.counts)) * (int(keys.max()) + 1), boxes.counts)
    # Sorting integers takes a quarter of the time of argsort. 63 bits suffice for keys and indices of a
    # million boxes on a million maps of 4,096 rows.
    bits = len(boxes).bit_length()
    keys <<= bits
    keys += np.arange(len(boxes))
    keys.sort()
    return keys & ((1 << bits) - 1)

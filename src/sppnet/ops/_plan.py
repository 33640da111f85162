"""What a compiled kernel is told of a call: tables of numbers, and the way that costs least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.ops.bins import count_bins, parents

WIDTH = 64
_TABLE_BYTES = 64 << 20
"""What the tables of one thread may take."""

_PAPER = (6, 3, 2, 1)
"""The pyramid that has code of its own."""

_LOAD, _ENTRY, _BIN, _PAPER_BIN = 2.2, 5.5, 8.0, -8.0
"""Measured in processor cycles: a load, a table's entry, and what a bin takes longer by tables than cell by
cell, which for the paper's pyramid includes the code that only tables can use."""

Words = NDArray[np.int64]


@dataclass(frozen=True)
class Boxes:
    """Boxes sorted by map, at least one.

    Attributes:
        corners: ``[4, N]``, x0, y0, x1 and y1 in cells.
        sides: ``[2, N]``, widths and heights.
        counts: how many each map has.

    numpy is slow at arrays with a last axis of 2, 3 or 4.
    """

    corners: Words
    sides: Words
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return self.corners.shape[1]

    def __getitem__(self, order: Words) -> Boxes:
        """These boxes, which must stay sorted by map."""
        return Boxes(self.corners.take(order, 1), self.sides.take(order, 1), self.counts)


@dataclass(frozen=True)
class Plan:
    """The tables that `sppnet.ops._tiles` describes, which nobody may write to.

    Attributes:
        maps, boxes, levels: the tables.
        counts: how many boxes each map has.
        bins: of all levels.
        doublings: of rows and of columns in the tables of a block.
        across: the step along a row, in bytes.
        edges: keeps alive what ``boxes`` points to.
        cells: of the largest map.
        all_cells: of all maps together.
        whole: one box a map, covering it.
        paper: the code of the paper's pyramid can pool them.
    """

    maps: Words
    boxes: Words
    counts: tuple[int, ...]
    levels: Words
    bins: int
    doublings: tuple[int, int]
    across: int
    edges: tuple[Words, Words]
    cells: int
    all_cells: int
    whole: bool
    paper: bool = False

    @cached_property
    def addresses(self) -> tuple[int, int, int]:
        """Of the tables."""
        return self.maps.ctypes.data, self.boxes.ctypes.data, self.levels.ctypes.data

    @property
    def table_bytes(self) -> int:
        """Memory for a block and its tables, in bytes."""
        return self.cells * WIDTH * self.doublings[0] * self.doublings[1]


@lru_cache(maxsize=64)
def _level_table(levels: tuple[int, ...], derived: bool) -> tuple[Words, tuple[int, ...]]:
    """The table of levels, and the levels that are pooled from cells."""
    before = np.cumsum([0, *(n * n for n in levels)])
    order = sorted(range(len(levels)), key=lambda i: (-levels[i], i))
    made_from = parents(levels) if derived else list(range(len(levels)))
    roots = [i for i in order if made_from[i] == i]
    places = dict(zip(roots, np.cumsum([0, *(levels[i] for i in roots)]), strict=False))
    rows = []
    for i in order:
        third = places[i] if i in places else levels[made_from[i]] // levels[i]
        rows.append([levels[i], order.index(made_from[i]), third, before[i]])
    return np.array(rows, np.int64), tuple(levels[i] for i in roots)


@lru_cache(maxsize=64)
def _numbers(roots: tuple[int, ...]) -> tuple[Words, Words]:
    """For each bin of a side the bins of its level, and its own number among them."""
    n = np.concatenate([np.full(root, root, np.int64) for root in roots])
    return n, np.concatenate([np.arange(root, dtype=np.int64) for root in roots])


def _bins_of(sizes: Words, roots: tuple[int, ...]) -> tuple[Words, Words]:
    """First cells and lengths ``[S, bins a side]`` of the bins of sides of ``sizes`` cells."""
    n, i = _numbers(roots)
    first = i * sizes[:, None] // n
    return first, -(-(i + 1) * sizes[:, None] // n) - first


@lru_cache(maxsize=64)
def _sides(most: int, roots: tuple[int, ...]) -> tuple[Words, Words, Words, tuple[int, ...]]:
    """By the cells of a side, 0 to ``most``: what its bins are.

    Returns:
        First cells and lengths ``[S, bins a side]``, the sum of lengths ``[L, S]`` a level, the longest.
    """
    first, lengths = _bins_of(np.arange(most + 1), roots)
    parts = np.split(lengths, np.cumsum(roots)[:-1], 1)
    return first, lengths, np.stack([part.sum(1) for part in parts]), tuple(lengths.max(1).tolist())


@lru_cache(maxsize=64)
def _region_edges(
    height: int, width: int, roots: tuple[int, ...], doublings: tuple[int, int]
) -> tuple[Words, Words]:
    """Bin edges of columns and of rows for every size of a box in a map of that size, from 0 on."""
    first, length, _, _ = _sides(max(height, width), roots)
    length = np.maximum(length, 1)
    plane = height * width * WIDTH
    columns = _edges(first, length, doublings[1], WIDTH, plane)
    return columns, _edges(first, length, doublings[0], width * WIDTH, plane * doublings[1])


def _log2(values: Words) -> Words:
    """Whole logarithms of positive integers: the exponents of floats."""
    return (values.astype(np.float64).view(np.int64) >> 52) - 1023


def _edges(first: Words, length: Words, doublings: int, step: Words | int, table: int) -> Words:
    """Bin edges in bytes: ``step`` between cells, ``table`` between the tables of one doubling more."""
    power = np.minimum(_log2(length), doublings - 1)
    last = first + length - (1 << power)
    return np.stack([first * step + power * table, last * step + power * table], -1)


def _choose(
    boxes: Boxes, roots: tuple[int, ...], height: int, width: int, longest: tuple[int, int], bin_cost: float
) -> tuple[int, int]:
    """How many doublings of rows and columns to tabulate, 1 and 1 for none, by the work that remains.

    ``longest`` are the longest bins of any box, down and across.
    """
    sums = _sides(max(height, width), roots)[2]
    direct = _LOAD * int(sum(np.vdot(one[boxes.sides[0]], one[boxes.sides[1]]) for one in sums))
    ky, kx = (one.bit_length() for one in longest)
    while ky * kx * height * width * WIDTH > _TABLE_BYTES and ky * kx > 1:
        ky, kx = (ky - 1, kx) if ky >= kx else (ky, kx - 1)
    maps = len(boxes.counts)
    entries = height * width * (ky * kx - 1) * maps
    tabled = _ENTRY * entries + bin_cost * len(boxes) * count_bins(roots)
    return (ky, kx) if tabled < direct else (1, 1)


def map_table(maps: Sequence[Tensor] | Tensor) -> Words:
    """Address, height, width and strides in bytes of each map ``[C, H, W]``."""
    if isinstance(maps, Tensor):
        return _batch_table(maps.data_ptr(), maps.shape, maps.stride(), maps.element_size())
    size = maps[0].element_size()
    rows = [[m.data_ptr(), *m.shape[1:], *(step * size for step in m.stride())] for m in maps]
    return np.array(rows, np.int64)


def _batch_table(address: int, shape: Sequence[int], stride: Sequence[int], size: int) -> Words:
    steps = [step * size for step in stride]
    table = np.empty((shape[0], 6), np.int64)
    table[:, 0] = address + np.arange(shape[0]) * steps[0]
    table[:, 1:] = [shape[2], shape[3], *steps[1:]]
    return table


def whole_plan(maps: Sequence[Tensor] | Tensor, levels: Sequence[int], mode: str) -> Plan:
    """One box a map, covering it."""
    derived = mode == "max"
    if isinstance(maps, Tensor):
        form = tuple(maps.shape), maps.stride(), maps.element_size()
        return _placed_plan(maps.data_ptr(), form, tuple(levels), derived)
    places = map_table(maps)
    table, roots = _level_table(tuple(levels), derived)
    heights, widths = places[:, 1], places[:, 2]
    columns = _edges(*_bins_of(widths, roots), 1, WIDTH, 0)
    rows = _edges(*_bins_of(heights, roots), 1, (widths * WIDTH)[:, None], 0)
    boxes = np.zeros((len(places), 3), np.int64)
    for column, side in enumerate((columns, rows)):
        boxes[:, 1 + column] = side.ctypes.data + side.shape[1] * 16 * np.arange(len(places))
    cells = heights * widths
    return Plan(
        places,
        boxes,
        (1,) * len(places),
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
"""Shape, strides and bytes an element of a batch of maps."""


@lru_cache(maxsize=64)
def _placed_plan(address: int, form: _Form, levels: tuple[int, ...], derived: bool) -> Plan:
    """The plan of a batch of whole maps; where memory is used over and over, addresses come again, too."""
    plan = _batch_plan(form, levels, derived)
    places = plan.maps.copy()
    places[:, 0] += address
    return replace(plan, maps=places)


@lru_cache(maxsize=64)
def _batch_plan(form: _Form, levels: tuple[int, ...], derived: bool) -> Plan:
    """The plan of a batch of whole maps that begins at address 0."""
    count, _, height, width = form[0]
    table, roots = _level_table(levels, derived)
    places = _batch_table(0, *form)
    columns = _edges(*_bins_of(np.array([width]), roots), 1, WIDTH, 0)
    rows = _edges(*_bins_of(np.array([height]), roots), 1, width * WIDTH, 0)
    boxes = np.array([[0, columns.ctypes.data, rows.ctypes.data]] * count, np.int64)
    cells = height * width
    bins, edges = count_bins(levels), (columns, rows)
    return Plan(places, boxes, (1,) * count, table, bins, (1, 1), WIDTH, edges, cells, count * cells, True)


def region_plan(maps: Tensor, boxes: Boxes, levels: Sequence[int], mode: str, paper: bool = False) -> Plan:
    """``boxes`` of ``maps`` ``[B, C, H, W]``; ``paper``: its kernel may take the paper's pyramid."""
    table, roots = _level_table(tuple(levels), mode == "max")
    height, width = maps.shape[2:]
    wide, tall = (_sides(max(height, width), roots)[3][side] for side in boxes.sides.max(1).tolist())
    in_blocks = maps.shape[1] % (WIDTH // maps.element_size()) == 0
    paper = paper and in_blocks and mode == "max" and tuple(levels) == _PAPER
    cost = _PAPER_BIN if paper else _BIN
    doublings = _choose(boxes, roots, height, width, (tall, wide), cost) if mode == "max" else (1, 1)
    edges = _region_edges(height, width, roots, doublings)
    lines = np.empty((len(boxes), 3), np.int64)
    lines[:, 0] = boxes.corners[1] * (width * WIDTH) + boxes.corners[0] * WIDTH
    for column, sides, edge in zip((1, 2), boxes.sides, edges, strict=True):
        lines[:, column] = sides * (edge.shape[1] * 16) + edge.ctypes.data
    covered = doublings != (1, 1) and not (tall >> doublings[0] or wide >> doublings[1])
    across = 0 if covered else WIDTH << (doublings[1] - 1)
    places, bins, cells = map_table(maps), count_bins(levels), height * width
    all_cells = len(maps) * cells
    return Plan(
        places,
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


def units_of(plan: Plan, channels: int, lanes: int, least: int) -> Words:
    """Units ``[U, 4]``: each block of each map, its boxes in runs where there are fewer than ``least``."""
    return _units(plan.counts, channels, lanes, 1 if plan.whole else least)


@lru_cache(maxsize=64)
def starts_of(counts: tuple[int, ...]) -> Words:
    """``[maps + 1]``, each map's first box."""
    return np.cumsum([0, *counts])


@lru_cache(maxsize=64)
def _units(counts: tuple[int, ...], channels: int, lanes: int, least: int) -> Words:
    blocks = np.arange(0, channels, lanes)
    runs = 1
    if len(blocks) * len(counts) < least:
        runs = max(1, min(-(-least // max(1, len(blocks) * len(counts))), max(counts, default=0) // 128))
    starts = starts_of(counts)
    cuts = starts[:-1, None] + np.diff(starts)[:, None] * np.arange(runs + 1) // runs
    units = np.empty((len(counts), len(blocks), runs, 4), np.int64)
    units[..., 0] = np.arange(len(counts))[:, None, None]
    units[..., 1] = blocks[:, None]
    units[..., 2], units[..., 3] = cuts[:, None, :-1], cuts[:, None, 1:]
    return units.reshape(-1, 4)


def weight_blocks(weight: Tensor, channels: int, levels: Sequence[int], lanes: int) -> Tensor:
    """A head ``[K, C * bins]`` as float32 ``[blocks, fours, bins * parts, 4, 16]``, filled up with zeros."""
    classes = weight.shape[0]
    # numpy, because threads that torch wakes spin for a while on the cores that ours need.
    given = weight.detach().to(torch.float32).numpy()
    split = np.split(given, np.cumsum([channels * n * n for n in levels])[:-1], 1)
    by_channel = np.concatenate([w.reshape(classes, channels, -1) for w in split], 2)
    bins, parts = by_channel.shape[2], lanes // 16
    fours, blocks = -(-classes // 4), -(-channels // lanes)
    padded = np.zeros((fours * 4, blocks * lanes, bins), np.float32)
    padded[:classes, :channels] = by_channel
    shaped = padded.reshape(fours, 4, blocks, parts, 16, bins).transpose(2, 0, 5, 3, 1, 4)
    return torch.from_numpy(np.ascontiguousarray(shaped).reshape(blocks, fours, bins * parts, 4, 16))


def near_order(boxes: Boxes) -> Words:
    """The order of the boxes in which each reads near where the last one did: by map, doublings, rows."""
    wide, tall = _log2(boxes.sides)
    keys = (tall * 32 + wide) * (int(boxes.corners[1].max()) + 1) + boxes.corners[1]
    if len(boxes.counts) > 1:
        keys += np.repeat(np.arange(len(boxes.counts)) * (int(keys.max()) + 1), boxes.counts)
    # Numbers are sorted in a quarter of the time that it takes to find their order. 63 bits hold those of a
    # million boxes on a million maps of 4,096 rows.
    bits = len(boxes).bit_length()
    keys <<= bits
    keys += np.arange(len(boxes))
    keys.sort()
    return keys & ((1 << bits) - 1)

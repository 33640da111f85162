"""What a compiled kernel is told of a call: tables of numbers, and the way that costs least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.ops.bins import count_bins, parents

WIDTH = 64
_TABLE_BYTES = 64 << 20
"""What the tables of one thread may take."""

Words = NDArray[np.int64]


@dataclass(frozen=True)
class Boxes:
    """Boxes sorted by map, in cells: each field is ``[N]``."""

    owners: Words
    x0: Words
    y0: Words
    widths: Words
    heights: Words

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, order: Words) -> Boxes:
        """These boxes, which must stay sorted by map."""
        return Boxes(*(field[order] for field in (self.owners, self.x0, self.y0, self.widths, self.heights)))


@dataclass(frozen=True)
class Plan:
    """The tables that `sppnet.ops._tiles` describes, which nobody may write to.

    Attributes:
        maps, boxes, levels: the tables.
        starts: ``[maps + 1]``, each map's first box.
        bins: of all levels.
        doublings: of rows and of columns in the tables of a block.
        across: the step along a row, in bytes.
        edges: keeps alive what ``boxes`` points to.
        cells: of the largest map.
        all_cells: of all maps together.
        whole: one box a map, covering it.
    """

    maps: Words
    boxes: Words
    starts: Words
    levels: Words
    bins: int
    doublings: tuple[int, int]
    across: int
    edges: tuple[Words, Words]
    cells: int
    all_cells: int
    whole: bool

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
def _sides(most: int, roots: tuple[int, ...]) -> tuple[Words, Words, Words]:
    """First cells and lengths of the bins of sides of 1 to ``most`` cells, and the sum of lengths a level."""
    first, lengths = _bins_of(np.arange(1, most + 1), roots)
    parts = np.split(lengths, np.cumsum(roots)[:-1], 1)
    return first, lengths, np.stack([part.sum(1) for part in parts], 1)


@lru_cache(maxsize=64)
def _region_edges(
    height: int, width: int, roots: tuple[int, ...], doublings: tuple[int, int]
) -> tuple[Words, Words]:
    """Bin edges of columns and of rows for every size of a box in a map of that size."""
    first, length, _ = _sides(max(height, width), roots)
    plane = height * width * WIDTH
    columns = _edges(first, length, doublings[1], WIDTH, plane)
    return columns, _edges(first, length, doublings[0], width * WIDTH, plane * doublings[1])


def _log2(values: Words) -> Words:
    return np.frexp(values)[1].astype(np.int64) - 1


def _edges(first: Words, length: Words, doublings: int, step: Words | int, table: int) -> Words:
    """Bin edges in bytes: ``step`` between cells, ``table`` between the tables of one doubling more."""
    power = np.minimum(_log2(length), doublings - 1)
    last = first + length - (1 << power)
    return np.stack([first * step + power * table, last * step + power * table], -1)


def _choose(boxes: Boxes, roots: tuple[int, ...], height: int, width: int, count: int) -> tuple[int, int]:
    """How many doublings of rows and columns to tabulate, 1 and 1 for none, by the work that remains.

    The costs of a load, a bin and a table entry were measured as 1.6, 6 and 2 processor cycles.
    """
    _, lengths, sums = _sides(max(height, width), roots)
    loads = int((sums[boxes.heights - 1] * sums[boxes.widths - 1]).sum())
    direct = 1.6 * loads
    tall, wide = int(boxes.heights.max()), int(boxes.widths.max())
    ky, kx = int(_log2(lengths[tall - 1].max())) + 1, int(_log2(lengths[wide - 1].max())) + 1
    while ky * kx * height * width * WIDTH > _TABLE_BYTES and ky * kx > 1:
        ky, kx = (ky - 1, kx) if ky >= kx else (ky, kx - 1)
    tabled = 2.0 * height * width * (ky * kx - 1) * count + 6.0 * len(boxes) * count_bins(roots)
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
        plan = _batch_plan(tuple(maps.shape), maps.stride(), maps.element_size(), tuple(levels), derived)
        places = plan.maps.copy()
        places[:, 0] += maps.data_ptr()
        return replace(plan, maps=places)
    places = map_table(maps)
    table, roots = _level_table(tuple(levels), derived)
    heights, widths = places[:, 1], places[:, 2]
    columns = _edges(*_bins_of(widths, roots), 1, WIDTH, 0)
    rows = _edges(*_bins_of(heights, roots), 1, (widths * WIDTH)[:, None], 0)
    numbers = np.arange(len(places) + 1)
    boxes = np.zeros((len(places), 3), np.int64)
    for column, side in enumerate((columns, rows)):
        boxes[:, 1 + column] = side.ctypes.data + side.shape[1] * 16 * numbers[:-1]
    cells = heights * widths
    return Plan(
        places,
        boxes,
        numbers,
        table,
        count_bins(levels),
        (1, 1),
        WIDTH,
        (columns, rows),
        int(cells.max()),
        int(cells.sum()),
        True,
    )


@lru_cache(maxsize=64)
def _batch_plan(
    shape: tuple[int, int, int, int],
    stride: tuple[int, int, int, int],
    size: int,
    levels: tuple[int, ...],
    derived: bool,
) -> Plan:
    """The plan of a batch of whole maps that begins at address 0."""
    count, _, height, width = shape
    table, roots = _level_table(levels, derived)
    places = _batch_table(0, shape, stride, size)
    columns = _edges(*_bins_of(np.array([width]), roots), 1, WIDTH, 0)
    rows = _edges(*_bins_of(np.array([height]), roots), 1, width * WIDTH, 0)
    boxes = np.array([[0, columns.ctypes.data, rows.ctypes.data]] * count, np.int64)
    cells = height * width
    bins, numbers, edges = count_bins(levels), np.arange(count + 1), (columns, rows)
    return Plan(places, boxes, numbers, table, bins, (1, 1), WIDTH, edges, cells, count * cells, True)


def region_plan(maps: Tensor, boxes: Boxes, levels: Sequence[int], mode: str) -> Plan:
    """``boxes`` of ``maps`` ``[B, C, H, W]``."""
    table, roots = _level_table(tuple(levels), mode == "max")
    height, width = maps.shape[2:]
    doublings = _choose(boxes, roots, height, width, len(maps)) if mode == "max" and len(boxes) else (1, 1)
    columns, rows = _region_edges(height, width, roots, doublings)
    row = columns.shape[1] * 16
    lines = np.empty((len(boxes), 3), np.int64)
    lines[:, 0] = (boxes.y0 * width + boxes.x0) * WIDTH
    lines[:, 1] = columns.ctypes.data + row * (boxes.widths - 1)
    lines[:, 2] = rows.ctypes.data + row * (boxes.heights - 1)
    across = WIDTH << (doublings[1] - 1)
    if doublings != (1, 1):
        _, length, _ = _sides(max(height, width), roots)
        tall = int(length[boxes.heights.max() - 1].max()) >> doublings[0]
        wide = int(length[boxes.widths.max() - 1].max()) >> doublings[1]
        across = across if tall or wide else 0
    starts = np.searchsorted(boxes.owners, np.arange(len(maps) + 1))
    places, bins, edges, cells = map_table(maps), count_bins(levels), (columns, rows), height * width
    return Plan(places, lines, starts, table, bins, doublings, across, edges, cells, len(maps) * cells, False)


def units_of(plan: Plan, channels: int, lanes: int, least: int) -> Words:
    """Units ``[U, 4]``: each block of each map, its boxes in runs where there are fewer than ``least``."""
    if plan.whole:
        return _whole_units(len(plan.maps), channels, lanes)
    blocks = len(range(0, channels, lanes))
    maps = len(plan.maps)
    counts = np.diff(plan.starts)
    runs = 1
    if blocks * maps < least:
        runs = max(1, min(-(-least // max(1, blocks * maps)), int(counts.max(initial=0)) // 128))
    cuts = plan.starts[:-1, None] + counts[:, None] * np.arange(runs + 1) // runs
    return _units(cuts, channels, lanes)


@lru_cache(maxsize=64)
def _whole_units(maps: int, channels: int, lanes: int) -> Words:
    numbers = np.arange(maps + 1)
    return _units(np.stack([numbers[:-1], numbers[1:]], 1), channels, lanes)


def _units(cuts: Words, channels: int, lanes: int) -> Words:
    """Units of maps whose boxes are cut at ``cuts`` ``[maps, runs + 1]``."""
    blocks = np.arange(0, channels, lanes)
    units = np.empty((len(cuts), len(blocks), cuts.shape[1] - 1, 4), np.int64)
    units[..., 0] = np.arange(len(cuts))[:, None, None]
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
    """The order of the boxes in which each reads next to the last one: by map, doublings, rows, columns."""
    far = int(boxes.x0.max(initial=0)) + 1
    low = int(boxes.y0.max(initial=0)) + 1
    shape = _log2(boxes.heights) * 32 + _log2(boxes.widths)
    return np.argsort(((boxes.owners * 1024 + shape) * low + boxes.y0) * far + boxes.x0, kind="stable")

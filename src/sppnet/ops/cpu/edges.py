"""Bin edges in bytes, for boxes of every size, and the table of levels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sppnet.ops.bins import parents
from sppnet.ops.cpu.args import LEVEL_FIELDS, LEVEL_FIRST_BIN, LEVEL_PARENT, LEVEL_SIDE, LEVEL_SOURCE

WIDTH = 64
"""Size of a vector in bytes."""
Integers = NDArray[np.int64]


@lru_cache(maxsize=64)
def level_table(levels: tuple[int, ...], derived: bool) -> tuple[Integers, tuple[int, ...]]:
    """Create the table of levels; return the levels that are pooled from cells too."""
    before = np.cumsum([0, *(n * n for n in levels)])
    order = sorted(range(len(levels)), key=lambda i: (-levels[i], i))
    made_from = parents(levels) if derived else list(range(len(levels)))
    roots = [i for i in order if made_from[i] == i]
    first_edges = dict(zip(roots, np.cumsum([0, *(levels[i] for i in roots)]), strict=False))
    table = np.empty((len(levels), LEVEL_FIELDS), np.int64)
    for row, i in zip(table, order, strict=True):
        row[LEVEL_SIDE], row[LEVEL_PARENT] = levels[i], order.index(made_from[i])
        row[LEVEL_SOURCE] = first_edges[i] if i in first_edges else levels[made_from[i]] // levels[i]
        row[LEVEL_FIRST_BIN] = before[i]
    return table, tuple(levels[i] for i in roots)


@lru_cache(maxsize=64)
def _numbers(roots: tuple[int, ...]) -> tuple[Integers, Integers]:
    """Return for each bin of a side the number of bins of its level, and its index among them."""
    n = np.concatenate([np.full(root, root, np.int64) for root in roots])
    return n, np.concatenate([np.arange(root, dtype=np.int64) for root in roots])


def bins_of(sizes: Integers, roots: tuple[int, ...]) -> tuple[Integers, Integers]:
    """Compute first cells and lengths ``[S, bins per side]`` of the bins of sides of ``sizes`` cells."""
    n, i = _numbers(roots)
    first = i * sizes[:, None] // n
    return first, -(-(i + 1) * sizes[:, None] // n) - first


@lru_cache(maxsize=64)
def sides_up_to(most: int, roots: tuple[int, ...]) -> tuple[Integers, Integers, Integers, tuple[int, ...]]:
    """Compute the bins of sides of 0 to ``most`` cells.

    Returns:
        First cells and lengths ``[S, bins per side]``, sums of lengths per level ``[L, S]``, the longest bin.
    """
    first, lengths = bins_of(np.arange(most + 1), roots)
    parts = np.split(lengths, np.cumsum(roots)[:-1], 1)
    return first, lengths, np.stack([part.sum(1) for part in parts]), tuple(lengths.max(1).tolist())


@lru_cache(maxsize=64)
def region_edges(
    height: int, width: int, roots: tuple[int, ...], doublings: tuple[int, int]
) -> tuple[Integers, Integers]:
    """Compute bin edges of columns and of rows for boxes of every size from 0 in a map of this size."""
    first, length, _, _ = sides_up_to(max(height, width), roots)
    length = np.maximum(length, 1)
    plane = height * width * WIDTH
    columns = byte_edges(first, length, doublings[1], WIDTH, plane)
    return columns, byte_edges(first, length, doublings[0], width * WIDTH, plane * doublings[1])


def log2(values: Integers) -> Integers:
    """Compute rounded down logarithms of positive integers from the exponents of floats."""
    return (values.astype(np.float64).view(np.int64) >> 52) - 1023


def byte_edges(
    first: Integers, length: Integers, doublings: int, step: Integers | int, table: int
) -> Integers:
    """Compute bin edges in bytes; ``step`` is the step between cells, ``table`` that between tables."""
    power = np.minimum(log2(length), doublings - 1)
    last = first + length - (1 << power)
    return np.stack([first * step + power * table, last * step + power * table], -1)

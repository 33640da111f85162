"""What moves and sums lanes, for registers of every width, whichever this processor has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
import torch

from sppnet.ops.cpu.jit import dots as _dots
from sppnet.ops.cpu.jit import paper as _paper
from sppnet.ops.cpu.jit import shuffles as _shuffles
from sppnet.ops.cpu.jit.dots import dots
from sppnet.ops.cpu.jit.keys import to_ordered
from sppnet.ops.cpu.jit.paper import pool_coarse_box, pool_paper_box
from sppnet.ops.cpu.jit.shuffles import stream_turned, transpose
from sppnet.ops.cpu.jit.simd import load, store
from sppnet.ops.cpu.kernels.tiles import pool_box

WIDTH = 64
# Two bytes need the most cases.
KINDS = [np.int16, *(pytest.param(k, marks=pytest.mark.exhaustive) for k in (np.int32, np.int64, np.float32))]


@pytest.fixture(params=[16, 32, 64], autouse=True)
def register(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_dots, _paper, _shuffles):
        monkeypatch.setattr(module, "register_bytes", lambda _: request.param)


def compiled(function: Callable[..., None]) -> Any:
    return numba.njit(nogil=True)(function)


def aligned(count: int, kind: type) -> np.ndarray[Any, Any]:
    """Zeros ``[count, lanes]`` that begin at a multiple of 64 bytes."""
    memory = np.zeros((count + 1) * WIDTH, np.uint8)
    start = -memory.ctypes.data % WIDTH
    return memory[start : start + count * WIDTH].view(kind).reshape(count, -1)


def drawn(count: int, kind: type, least: int) -> np.ndarray[Any, Any]:
    found = aligned(count, kind)
    found[:] = np.random.default_rng(0).integers(least, 30_000, found.shape)
    return found


def in_order(like, source, target, count):
    for at in range(0, count * WIDTH, WIDTH):
        store(target + at, to_ordered(load(like, source + at)))


def ordered(source: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    target = np.zeros_like(source)
    count = source.nbytes // WIDTH
    compiled(in_order)(source.dtype.type(0), source.ctypes.data, target.ctypes.data, count)
    return target


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_half_floats_order_as_their_keys_and_come_back(dtype: torch.dtype) -> None:
    values = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    # Stable: the negative zero comes before the positive one.
    values = values[~values.isnan()].sort(stable=True).values
    values = torch.cat([values, values[-1:].expand(-len(values) % 32)])
    keys = ordered(values.view(torch.int16).numpy())
    steps, rising = np.diff(keys.astype(np.int64)), np.diff(values.double().numpy()) > 0
    assert (steps[rising] > 0).all()
    assert (steps[~rising] >= 0).all()
    assert torch.equal(torch.from_numpy(ordered(keys)).view(dtype), values)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_become_columns(kind: type) -> None:
    def turn(like, source, target, size):
        transpose(like, 32, source, WIDTH, target, 64 * size)
        transpose(like, 8, source, WIDTH, target + 32 * size, 64 * size)
        transpose(like, 4, source + WIDTH, WIDTH, target + 40 * size, 64 * size)
        transpose(like, 2, source, WIDTH, target + 44 * size, 64 * size)
        transpose(like, 1, source, WIDTH, target + 46 * size, 64 * size)

    source = drawn(32, kind, -30_000)
    lanes = source.shape[1]
    target, most = np.zeros((lanes, 64), kind), min(32, lanes)
    compiled(turn)(kind(0), source.ctypes.data, target.ctypes.data, source.itemsize)
    assert np.array_equal(target[:, :most], source[:most].T)
    rows = min(8, lanes)
    assert np.array_equal(target[:, 32 : 32 + rows], source[:rows].T)
    assert np.array_equal(target[:, 40:44], source[1:5].T)
    assert np.array_equal(target[:, 44:46], source[:2].T)
    assert np.array_equal(target[:, 46], source[0])


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_streamed_as_columns(kind: type) -> None:
    def turn(like, source, target):
        stream_turned(like, 36, source, target)
        stream_turned(like, 9, source, target + 36 * WIDTH)
        stream_turned(like, 4, source, target + 45 * WIDTH)
        stream_turned(like, 1, source, target + 49 * WIDTH)

    source, target = drawn(36, kind, -30_000), aligned(50, kind)
    compiled(turn)(kind(0), source.ctypes.data, target.ctypes.data)
    expected = [source[:count].T.reshape(count, -1) for count in (36, 9, 4, 1)]
    assert np.array_equal(target, np.concatenate(expected))


def test_products_of_four_rows_and_four_vectors() -> None:
    def multiply(a, b, c, d, vectors, size, target):
        store(target, dots(a, b, c, d, vectors, size))

    draw = np.random.default_rng(1)
    rows = draw.normal(size=(4, 80)).astype(np.float32)
    vectors = draw.normal(size=(5, 4, 16)).astype(np.float32)
    target = np.zeros((4, 4), np.float32)
    places = [row.ctypes.data for row in rows]
    compiled(multiply)(*places, vectors.ctypes.data, rows[0].nbytes, target.ctypes.data)
    exact = rows.astype(np.float64) @ vectors.transpose(1, 0, 2).reshape(4, 80).astype(np.float64).T
    np.testing.assert_allclose(target, exact, rtol=1e-5, atol=1e-5)


PAPER = [[6, 0, 0, 0], [3, 0, 2, 36], [2, 0, 3, 45], [1, 2, 2, 49]]
# The second level's edges come after the first one's three.
COARSE = [[3, 0, 0, 0], [2, 1, 3, 9], [1, 1, 2, 13]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("pool", "levels", "edges", "probed"), [(pool_paper_box, PAPER, 6, 35), (pool_coarse_box, COARSE, 5, 12)]
)
def test_a_box_of_one_pyramid_is_that_of_any(
    kind: type, pool: Any, levels: list[list[int]], edges: int, probed: int
) -> None:
    def both(like, block, box, levels, depth, target, other):
        pool(like, target, block, box)
        pool_box(like, other, block, box, levels, depth, 0, WIDTH)

    draw = np.random.default_rng(2)
    block = drawn(900, kind, -30_000)
    columns, rows = draw.integers(0, 300, (edges, 2)) * WIDTH, draw.integers(0, 300, (edges, 2)) * WIDTH
    box, table = np.array([100 * WIDTH, columns.ctypes.data, rows.ctypes.data]), np.array(levels)
    bins = int((table[:, 0] ** 2).sum())
    target, other = aligned(bins, kind), aligned(bins, kind)
    addresses = [array.ctypes.data for array in (block, box, table)]
    compiled(both)(kind(0), *addresses, len(table), target.ctypes.data, other.ctypes.data)
    # The paper's code writes bits of floats where it has compared keys.
    keyed = pool is pool_paper_box and kind != np.float32
    assert np.array_equal(target, ordered(other) if keyed else other)
    corners = [block[100 + (r + c) // WIDTH] for r in rows[-1] for c in columns[-1]]
    assert np.array_equal(other[probed], np.max(corners, 0))

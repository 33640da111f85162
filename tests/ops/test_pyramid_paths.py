"""Paths through the CPU kernels that only sizes, budgets and pyramids decide on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracle import pool_crops
from test_pyramid_ops import random_regions, small_integers
from torch import Tensor

from sppnet.ops import region_pyramid_pool
from sppnet.ops.cpu import dispatch, plan
from sppnet.ops.cpu.jit.entry import Entry

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
PAPER = (6, 3, 2, 1)


def exhaustive(*values: object) -> list[Any]:
    return [pytest.param(value, marks=pytest.mark.exhaustive) for value in values]


def assert_equal(got: Tensor, maps: Tensor, regions: list[Tensor], levels: tuple[int, ...]) -> None:
    expected = pool_crops(maps.float(), regions, levels, "max").to(maps.dtype)
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "dtype", [DTYPES[0], *(pytest.param(d, marks=pytest.mark.exhaustive) for d in DTYPES[1:])]
)
@pytest.mark.parametrize(
    "levels",
    [
        PAPER,
        (4, 3, 2, 1),
        *(pytest.param(n, marks=pytest.mark.exhaustive) for n in [(1, 2, 3, 6), (6, 3, 1)]),
    ],
)
@pytest.mark.parametrize("budget", [64 << 20, 300_000])
@pytest.mark.parametrize("odd", [0.0, float("nan")])
def test_large_outputs_are_right_to_the_last_row(
    dtype: torch.dtype, levels: tuple[int, ...], budget: int, odd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Above 8 MiB features are written past the caches. The paper's pyramid has its own code, see below.
    monkeypatch.setattr(plan, "_TABLE_BYTES", budget)
    generator = torch.Generator().manual_seed(8)
    maps = torch.randn(2, 64, 31, 43, generator=generator).to(dtype)
    maps[0, 5, 3:9, 4], maps[1, 63], maps[1, 0, 8] = odd, float("-inf"), float("inf")
    regions = [random_regions(n, 31, 43, generator) for n in (1700, 1300)]
    got = region_pyramid_pool(maps, regions, levels)
    assert got.numel() * got.element_size() > 8 << 20
    assert_equal(got[:40], maps, [regions[0][:40], regions[1][:0]], levels)
    assert_equal(got[-3:], maps, [regions[0][:0], regions[1][-3:]], levels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("odd", [0.0, float("nan")])
def test_the_paper_pyramid_has_its_own_code_for_small_outputs_too(
    dtype: torch.dtype, odd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[Entry, bool]] = []
    run = dispatch.run_kernel

    def watched(entry: Entry, *rest: Any) -> bool:
        taken.append((entry, run(entry, *rest)))
        return taken[-1][1]

    monkeypatch.setattr(dispatch, "run_kernel", watched)
    generator = torch.Generator().manual_seed(9)
    maps = torch.randn(2, 32, 20, 30, generator=generator).to(dtype)
    maps[0, 5, 3:9, 4] = odd
    regions = [random_regions(n, 20, 30, generator) for n in (120, 80)]
    got = region_pyramid_pool(maps, regions, PAPER)
    # Maps with a NaN are left to the code of any pyramid.
    own = (dispatch._PAPER[dtype], odd == 0)
    assert taken == ([own] if odd == 0 else [own, (dispatch._MAX[dtype], True)])
    assert_equal(got, maps, regions, PAPER)


@pytest.mark.parametrize("budget", [1, 100_000, 400_000])
def test_tables_that_do_not_fit_are_made_smaller(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(6)
    maps = small_integers(1, 20, 40, 33, seed=6)
    regions = [random_regions(400, 40, 33, generator)]
    grad = small_integers(400, 20 * 14, seed=9)

    def both() -> tuple[Tensor, Tensor]:
        leaf = maps.clone().requires_grad_()
        rows = region_pyramid_pool(leaf, regions, (3, 2, 1))
        rows.backward(grad)
        assert leaf.grad is not None
        return rows.detach(), leaf.grad

    expected = both()
    assert_equal(expected[0][:50], maps, [regions[0][:50]], (3, 2, 1))
    monkeypatch.setattr(plan, "_TABLE_BYTES", budget)
    for ours, theirs in zip(both(), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_map_of_more_cells_than_half_a_word_counts() -> None:
    # Keys of half floats have 16 bits for the value and 16 for the cell: up to 65,535 cells.
    maps = small_integers(1, 3, 300, 301, seed=6).to(torch.bfloat16)
    whole, grad = [torch.tensor([[0, 0, 301, 300]])], torch.ones(1, 3 * 5)
    leaf, double = maps.clone().requires_grad_(), maps.double().requires_grad_()
    region_pyramid_pool(leaf, whole, (2, 1)).backward(grad.to(torch.bfloat16))
    pool_crops(double, whole, (2, 1), "max").backward(grad.double())
    assert leaf.grad is not None
    assert double.grad is not None
    assert torch.equal(leaf.grad.double(), double.grad)

"""Pooled values against torch's adaptive pooling and against plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import pool_plain
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from sppnet.ops import region_pyramid_pool, spatial_pyramid_pool
from sppnet.ops._fallback import pool_maps, pool_regions
from sppnet.ops.cpu import dispatch as _cpu
from sppnet.ops.cpu import plan as _plan
from sppnet.ops.cpu.jit.entry import Entry

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
KERNEL_DTYPES = DTYPES[:3]
"""The types that kernels pool; float64 takes the plain tensor form."""
LAYOUTS = ["contiguous", "channels_last", "transposed", "sliced", "expanded"]


def lay_out(maps: Tensor, layout: str) -> Tensor:
    """The same values with other strides."""
    if layout == "channels_last":
        return maps.to(memory_format=torch.channels_last)
    if layout == "transposed":
        return maps.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "sliced":
        b, c, h, w = maps.shape
        large = torch.full((b, 2 * c + 1, h + 2, 3 * w), float("nan"), dtype=maps.dtype)
        part = large[:, 1::2, 1:-1, 1::3]
        part.copy_(maps)
        return part
    if layout == "expanded":
        return maps[:, :1].expand_as(maps)
    return maps


def random_regions(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    corners = torch.rand(count, 4, generator=generator, dtype=torch.float64)
    x = (corners[:, :2] * width).long().sort(1).values
    y = (corners[:, 2:] * height).long().sort(1).values
    return torch.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], 1)


def by_torch(one: Tensor, levels: Sequence[int]) -> Tensor:
    """The contract, word for word, for a map ``[C, H, W]``."""
    return torch.cat([adaptive_max_pool2d(one[None], n).flatten(1) for n in levels], 1)[0]


def all_sizes(limit: int) -> Tensor:
    """A region of every height and width up to ``limit``, somewhere on a map of that side."""
    generator = torch.Generator().manual_seed(5)
    regions = []
    for height in range(1, limit + 1):
        for width in range(1, limit + 1):
            x = int(torch.randint(0, limit - width + 1, (), generator=generator))
            y = int(torch.randint(0, limit - height + 1, (), generator=generator))
            regions.append([x, y, x + width, y + height])
    return torch.tensor(regions)


@pytest.mark.usefixtures("one_thread")
def test_every_height_and_width_to_40_with_levels_1_to_8_equals_adaptive_pooling() -> None:
    levels = (1, 2, 3, 4, 5, 6, 7, 8)
    # Mostly below zero: a maximum that starts at 0 would show.
    maps = torch.randn(1, 5, 40, 40, generator=torch.Generator().manual_seed(1)) - 2
    regions = all_sizes(40)
    crops = [maps[0, :, y0:y1, x0:x1] for x0, y0, x1, y1 in regions.tolist()]
    expected = torch.stack([by_torch(crop, levels) for crop in crops])
    assert (expected < 0).float().mean() > 0.3

    from sppnet.ops._backends import _checked

    plan = _plan.region_plan(maps, _checked(maps, [regions]), levels, "max")
    assert plan.doublings > (1, 1), "meant to go by tables; whole maps go cell by cell"
    assert torch.equal(region_pyramid_pool(maps, [regions], levels), expected)
    assert torch.equal(spatial_pyramid_pool(crops, levels), expected)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, list[Tensor], list[int], str]:
    levels = draw(st.lists(st.integers(1, 16), min_size=1, max_size=3))
    height, width = draw(st.integers(1, 64)), draw(st.integers(1, 64))
    batch, channels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 7, 16, 19, 33]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    maps = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)
    maps = lay_out(maps.to(draw(st.sampled_from(DTYPES))), draw(st.sampled_from(LAYOUTS)))
    counts = [draw(st.integers(0, 3)) for _ in range(batch)]
    regions = [random_regions(n, height, width, generator) for n in counts]
    return maps, regions, levels, draw(st.sampled_from(["max", "mean"]))


def assert_same(got: Tensor, expected: Tensor, mode: str) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if mode == "max":
        assert torch.equal(got, expected)
    else:
        # Sums of float64, whose values are about 1, are rounded on their way, in one order or another.
        step = torch.finfo(got.dtype).eps
        torch.testing.assert_close(got, expected, rtol=2 * step, atol=4 * step)


@given(case=cases())
@settings(deadline=None, max_examples=60)
def test_regions_equal_plain_loops(case: tuple[Tensor, list[Tensor], list[int], str]) -> None:
    maps, regions, levels, mode = case
    expected = pool_plain(maps, regions, levels, mode)
    got = region_pyramid_pool(maps, regions, levels, mode)
    assert_same(got, expected, mode)
    assert_same(pool_regions(maps, regions, levels, mode), expected, mode)


@given(case=cases())
@settings(deadline=None, max_examples=40)
def test_whole_maps_equal_plain_loops(case: tuple[Tensor, list[Tensor], list[int], str]) -> None:
    maps, _, levels, mode = case
    whole = [torch.tensor([[0, 0, maps.shape[3], maps.shape[2]]])] * len(maps)
    expected = pool_plain(maps, whole, levels, mode)
    assert_same(spatial_pyramid_pool(maps, levels, mode), expected, mode)
    assert_same(spatial_pyramid_pool(list(maps), levels, mode), expected, mode)
    assert_same(pool_maps(maps, levels, mode), expected, mode)


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
def test_large_outputs_are_right_to_the_last_row(dtype: torch.dtype) -> None:
    # Above 8 MiB rows go past the caches, in other instructions.
    generator = torch.Generator().manual_seed(4)
    maps = torch.randn(1, 64, 30, 40, generator=generator).to(dtype)
    regions = random_regions(1500, 30, 40, generator)
    got = region_pyramid_pool(maps, [regions], (6, 3, 2, 1))
    assert got.numel() * got.element_size() > 8 << 20
    for i in (0, 1, 2, 700, 1498, 1499):
        x0, y0, x1, y1 = regions[i].tolist()
        assert torch.equal(got[i], by_torch(maps[0, :, y0:y1, x0:x1].float(), (6, 3, 2, 1)).to(dtype))


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
@pytest.mark.parametrize("levels", [(6, 3, 2, 1), (1, 2, 3, 6), (6, 3, 1), (4, 3, 2, 1)])
@pytest.mark.parametrize("budget", [64 << 20, 300_000])
@pytest.mark.parametrize("odd", [0.0, float("nan")])
def test_large_outputs_of_the_paper_and_others(
    dtype: torch.dtype, levels: tuple[int, ...], budget: int, odd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Beyond 8 MiB rows go past the caches. The paper's pyramid has code of its own, see below.
    monkeypatch.setattr(_plan, "_TABLE_BYTES", budget)
    generator = torch.Generator().manual_seed(8)
    maps = torch.randn(2, 64, 31, 43, generator=generator).to(dtype)
    maps[0, 5, 3:9, 4], maps[1, 63], maps[1, 0, 8] = odd, float("-inf"), float("inf")
    regions = [random_regions(n, 31, 43, generator) for n in (1700, 1300)]
    public = region_pyramid_pool(maps, regions, levels)
    assert public.numel() * public.element_size() > 8 << 20
    for row, (x0, y0, x1, y1) in zip(public[:40], regions[0].tolist(), strict=False):
        expected = by_torch(maps[0, :, y0:y1, x0:x1].float(), levels).to(dtype)
        assert torch.equal(row.nan_to_num(9.0), expected.nan_to_num(9.0))


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
@pytest.mark.parametrize("odd", [0.0, float("nan")])
def test_the_paper_pyramid_has_code_of_its_own_for_small_outputs_too(
    dtype: torch.dtype, odd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[Entry, bool]] = []

    def watched(entry: Entry, *rest: Any) -> bool:
        taken.append((entry, _run(entry, *rest)))
        return taken[-1][1]

    _run = _cpu.run_kernel
    monkeypatch.setattr(_cpu, "run_kernel", watched)
    generator = torch.Generator().manual_seed(9)
    maps = torch.randn(2, 32, 20, 30, generator=generator).to(dtype)
    maps[0, 5, 3:9, 4] = odd
    regions = [random_regions(n, 20, 30, generator) for n in (120, 80)]
    levels = (6, 3, 2, 1)
    public = region_pyramid_pool(maps, regions, levels)
    # Floats that are NaN are for the other code.
    own = (_cpu._PAPER[dtype], odd == 0)
    assert taken == ([own] if odd == 0 else [own, (_cpu._MAX[dtype], True)])
    rows = iter(public)
    for one, some in zip(maps, regions, strict=True):
        for x0, y0, x1, y1 in some.tolist():
            expected = by_torch(one[:, y0:y1, x0:x1].float(), levels).to(dtype)
            assert torch.equal(next(rows).nan_to_num(9.0), expected.nan_to_num(9.0))


@pytest.mark.parametrize("budget", [1, 100_000, 400_000])
def test_tables_that_do_not_fit_are_made_smaller(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(6)
    maps = torch.randn(1, 20, 40, 33, generator=generator)
    regions = random_regions(400, 40, 33, generator)
    expected = region_pyramid_pool(maps, [regions], (3, 2))
    monkeypatch.setattr(_plan, "_TABLE_BYTES", budget)
    assert torch.equal(region_pyramid_pool(maps, [regions], (3, 2)), expected)
    picked = [by_torch(maps[0, :, y0:y1, x0:x1], (3, 2)) for x0, y0, x1, y1 in regions[:50].tolist()]
    assert torch.equal(expected[:50], torch.stack(picked))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sign", [1, -1])
def test_nan_spreads_to_the_bins_that_hold_it_and_no_further(dtype: torch.dtype, sign: int) -> None:
    maps = torch.randn(1, 18, 12, 12, generator=torch.Generator().manual_seed(7)).to(dtype)
    maps[0, 3, 5, 7] = float("nan")
    maps[0, 3] *= sign
    maps[0, 4, 2, 2], maps[0, 5] = float("inf"), float("-inf")
    regions = torch.tensor([[0, 0, 12, 12], [7, 5, 8, 6], [0, 0, 7, 5]]).repeat(30, 1)
    got = region_pyramid_pool(maps, [regions], (6, 3, 2, 1))
    for row, (x0, y0, x1, y1) in zip(got[:3], regions[:3].tolist(), strict=True):
        expected = by_torch(maps[0, :, y0:y1, x0:x1].float(), (6, 3, 2, 1)).to(dtype)
        assert torch.equal(row.isnan(), expected.isnan())
        assert torch.equal(row.nan_to_num(9.0), expected.nan_to_num(9.0))


def test_both_signs_of_nan_count() -> None:
    # 0 / 0 gives a NaN with its sign bit set, which as an integer is the smallest.
    for dtype, words in (
        (torch.float32, torch.int32),
        (torch.bfloat16, torch.int16),
        (torch.float16, torch.int16),
    ):
        positive = torch.full((1, 1, 2, 2), float("nan"), dtype=dtype)
        negative = (positive.view(words) | torch.iinfo(words).min).view(dtype)
        for nan in (positive, negative):
            maps = torch.ones(1, 1, 2, 2, dtype=dtype)
            maps[..., 1, 1] = nan[..., 1, 1]
            assert spatial_pyramid_pool(maps, (2, 1)).isnan().tolist() == [[False, False, False, True, True]]


def test_means_are_those_of_adaptive_pooling() -> None:
    maps = torch.randn(3, 20, 13, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    expected = torch.cat([adaptive_avg_pool2d(maps, n).flatten(1) for n in (6, 3, 2, 1)], 1)
    torch.testing.assert_close(spatial_pyramid_pool(maps, mode="mean"), expected, rtol=1e-14, atol=1e-15)


def test_a_huge_value_leaves_the_means_of_other_bins_exact() -> None:
    maps = torch.ones(1, 1, 8, 8)
    maps[0, 0, 0, 0] = 1e30
    maps[0, 0, 7, 7] = float("inf")
    means = spatial_pyramid_pool(maps, (8,), "mean")[0]
    assert means[1:-1].eq(1).all()
    assert means[-1].isinf()


def test_means_are_rounded_once() -> None:
    # In float32 the small terms would be lost one by one.
    maps = torch.full((1, 1, 1, 4097), 2.0**-13)
    maps[..., 0] = 2.0**11
    exact = (2.0**11 + 4096 * 2.0**-13) / 4097
    assert spatial_pyramid_pool(maps, (1,), "mean").item() == torch.tensor(exact).item()


@pytest.mark.parametrize("shape", [(0, 5, 4, 4), (2, 0, 4, 4), (1, 3, 1, 1)])
def test_empty_batches_empty_channels_and_single_cells(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape)
    assert spatial_pyramid_pool(maps, (3, 1)).shape == (shape[0], shape[1] * 10)
    regions = [torch.tensor([[0, 0, 1, 1]])] * shape[0]
    pooled = region_pyramid_pool(maps, regions, (3, 1))
    assert pooled.shape == (shape[0], shape[1] * 10)
    if shape[2] == 1:
        assert torch.equal(pooled, spatial_pyramid_pool(maps, (3, 1)))


def test_empty_region_lists_give_no_rows() -> None:
    maps = torch.randn(2, 3, 4, 5)
    none = torch.zeros(0, 4, dtype=torch.int64)
    assert region_pyramid_pool(maps, [none, none]).shape == (0, 150)
    some = region_pyramid_pool(maps, [none, torch.tensor([[0, 0, 5, 4]])])
    assert torch.equal(some, spatial_pyramid_pool(maps)[1:])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_any_integer_type_names_cells(dtype: torch.dtype) -> None:
    maps = torch.randn(1, 3, 9, 9)
    regions = torch.tensor([[0, 1, 5, 9], [2, 2, 3, 3]])
    assert torch.equal(region_pyramid_pool(maps, [regions.to(dtype)]), region_pyramid_pool(maps, [regions]))

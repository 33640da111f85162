"""Fused scores against pooling and multiplying."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops import region_pyramid_pool, region_pyramid_scores
from sppnet.ops.bins import count_bins
from sppnet.ops.cpu import plan as _plan


def windows(count: int, height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, width, (count, 2), generator=generator).sort(1).values
    y = torch.randint(0, height, (count, 2), generator=generator).sort(1).values
    return torch.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], 1)


def two_steps(
    maps: Tensor, regions: list[Tensor], weight: Tensor, bias: Tensor | None, levels: list[int], mode: str
) -> Tensor:
    rows = region_pyramid_pool(maps, regions, levels, mode).double()
    return rows @ weight.double().T + (0 if bias is None else bias.double())


@given(
    classes=st.integers(1, 23),
    channels=st.sampled_from([1, 15, 16, 17, 40, 64]),
    levels=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    counts=st.lists(st.sampled_from([0, 1, 3, 4, 61]), min_size=1, max_size=3),
    mode=st.sampled_from(["max", "max", "mean"]),
    biased=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_scores_are_those_of_the_two_steps(
    classes: int,
    channels: int,
    levels: list[int],
    dtype: torch.dtype,
    counts: list[int],
    mode: str,
    biased: bool,
) -> None:
    generator = torch.Generator().manual_seed(classes)
    maps = torch.randn(len(counts), channels, 14, 19, generator=generator).to(dtype)
    regions = [windows(n, 14, 19, i) for i, n in enumerate(counts)]
    weight = torch.randn(classes, channels * count_bins(levels), generator=generator)
    bias = torch.randn(classes, generator=generator) if biased else None
    got = region_pyramid_scores(maps, regions, weight, bias, levels, mode)
    expected = two_steps(maps, regions, weight, bias, levels, mode)
    assert got.dtype == torch.float32
    assert got.shape == (sum(counts), classes)
    assert got.is_contiguous()
    scale = weight.abs().sum(1).max().item()
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_windows_and_several_threads(dtype: torch.dtype) -> None:
    maps = torch.randn(2, 96, 30, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    regions = [windows(3001, 30, 40, 2), windows(1002, 30, 40, 3)]
    weight = torch.randn(5, 96 * 14, generator=torch.Generator().manual_seed(4))
    threads = torch.get_num_threads()
    results: list[Tensor] = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(region_pyramid_scores(maps, regions, weight, None, (3, 2, 1)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    expected = two_steps(maps, regions, weight, None, [3, 2, 1], "max")
    torch.testing.assert_close(results[0].double(), expected, rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nan_reaches_the_windows_that_hold_it_and_no_others(dtype: torch.dtype) -> None:
    maps = torch.randn(1, 40, 9, 9, generator=torch.Generator().manual_seed(1)).to(dtype)
    maps[0, 33, 4, 7], maps[0, 2, 0, 0] = float("nan"), float("-inf")
    regions = torch.tensor([[0, 0, 9, 9], [0, 0, 7, 9], [7, 4, 8, 5], [0, 1, 9, 4]])
    weight = torch.rand(3, 40 * 5, generator=torch.Generator().manual_seed(2)) + 0.1
    got = region_pyramid_scores(maps, [regions], weight, None, (2, 1))
    expected = two_steps(maps, [regions], weight, None, [2, 1], "max")
    assert expected[:, 0].isnan().tolist() == [True, False, True, False]
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4, equal_nan=True)


def test_the_type_of_the_scores_is_that_of_the_weight() -> None:
    maps, regions = torch.randn(1, 8, 9, 9), [windows(6, 9, 9, 5)]
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        weight = torch.randn(2, 8).to(dtype)
        got = region_pyramid_scores(maps, regions, weight, None, (1,))
        assert got.dtype == dtype
        torch.testing.assert_close(
            got.double(), two_steps(maps, regions, weight, None, [1], "max"), rtol=2e-2, atol=5e-2
        )


def test_gradients_flow_to_maps_weight_and_bias() -> None:
    maps = torch.randn(1, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4 * 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    regions = [windows(4, 6, 6, 6)]
    assert torch.autograd.gradcheck(
        lambda m, w, b: region_pyramid_scores(m, regions, w, b, (2, 1)), (maps, weight, bias)
    )


def test_no_windows_and_no_classes() -> None:
    maps, none = torch.randn(1, 4, 6, 6), [torch.zeros(0, 4, dtype=torch.int64)]
    assert region_pyramid_scores(maps, none, torch.randn(3, 4), None, (1,)).shape == (0, 3)
    assert region_pyramid_scores(maps, [windows(2, 6, 6, 7)], torch.randn(0, 4), None, (1,)).shape == (2, 0)


def test_heads_of_another_length_are_refused() -> None:
    maps, regions = torch.randn(1, 4, 6, 6), [windows(2, 6, 6, 8)]
    with pytest.raises(UserError, match=r"weight: expected a tensor \[K, 200\], got shape \[3, 20\]"):
        region_pyramid_scores(maps, regions, torch.randn(3, 20))
    with pytest.raises(UserError, match=r"bias: expected a tensor \[3\], got shape \[2\]"):
        region_pyramid_scores(maps, regions, torch.randn(3, 4), torch.randn(2), (1,))


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_boxes_are_scored_by_map_size_and_row(counts: list[int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    corners = draw.integers(0, 60, (4, sum(counts)))
    corners[2:] = corners[:2] + draw.integers(1, 60, (2, sum(counts)))
    sides = corners[2:] - corners[:2]
    order = _plan.near_order(_plan.Boxes(corners, sides, tuple(counts)))
    owners, logarithms = np.repeat(np.arange(len(counts)), counts), np.floor(np.log2(sides))
    keys = list(zip(owners, logarithms[1], logarithms[0], corners[1], range(sum(counts)), strict=True))
    assert [keys[i] for i in order] == sorted(keys)

"""Gradients against torch's own, where maxima tie, in every type, and by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import adaptive_max_pool2d

from sppnet.ops import region_pyramid_pool, spatial_pyramid_pool
from sppnet.ops.cpu import plan as _plan

LEVELS = (6, 4, 3, 2, 1)


def torch_gradient(maps: Tensor, regions: list[Tensor], levels: tuple[int, ...], grad: Tensor) -> Tensor:
    """What torch gives for cropping, adaptive pooling and joining, in float64."""
    leaf = maps.detach().double().requires_grad_()
    rows = [
        torch.cat([adaptive_max_pool2d(one[None, :, y0:y1, x0:x1], n).flatten(1) for n in levels], 1)
        for one, boxes in zip(leaf, regions, strict=True)
        for x0, y0, x1, y1 in boxes.tolist()
    ]
    torch.cat(rows).backward(grad.double())
    assert leaf.grad is not None
    return leaf.grad


def our_gradient(maps: Tensor, regions: list[Tensor], levels: tuple[int, ...], grad: Tensor) -> Tensor:
    leaf = maps.detach().requires_grad_()
    region_pyramid_pool(leaf, regions, levels).backward(grad)
    assert leaf.grad is not None
    return leaf.grad


def small_integers(*shape: int, seed: int) -> Tensor:
    """Whole numbers, so that sums are exact in any order and type that holds them."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("count", [3, 60])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradient_goes_to_the_first_of_equal_maxima(
    dtype: torch.dtype, count: int, memory_format: torch.memory_format
) -> None:
    # Seven different values: nearly every bin has several equal maxima.
    maps = small_integers(2, 35, 17, 23, seed=1).to(dtype).to(memory_format=memory_format)
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(0, 23, (count, 2), generator=generator).sort(1).values
    y = torch.randint(0, 17, (count, 2), generator=generator).sort(1).values
    boxes = torch.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], 1)
    regions = [boxes, boxes[: count // 2]]
    rows = len(boxes) + len(regions[1])
    # Few ones among zeros: half floats then hold every sum.
    grad = (small_integers(rows, 35 * 66, seed=3) == 3).to(dtype)
    got = our_gradient(maps, regions, LEVELS, grad)
    assert got.dtype == dtype
    assert got.stride() == maps.stride()
    assert torch.equal(got.double(), torch_gradient(maps, regions, LEVELS, grad))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_zeros_of_both_signs_are_equal(sign: float) -> None:
    maps = torch.tensor([[[[0.0 * sign, -0.0 * sign]]]]).requires_grad_()
    spatial_pyramid_pool(maps, (1,)).backward(torch.ones(1, 1))
    assert maps.grad is not None
    assert maps.grad.flatten().tolist() == [1, 0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_nan_of_either_sign_is_the_largest_where_a_gradient_is_asked_for(layout: torch.memory_format) -> None:
    maps = torch.randn(2, 33, 9, 9, generator=torch.Generator().manual_seed(4))
    # Bits by numpy: torch's own division makes one sign alone.
    odd = torch.from_numpy(np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32))
    maps[0, 3, 2, 2], maps[1, 32, 8, 8], maps[1, 32, 0, 0] = odd[1], odd[0], -torch.inf
    leaf, peer = (maps.clone(memory_format=layout).requires_grad_() for _ in range(2))
    rows = spatial_pyramid_pool(leaf, (3, 1))
    expected = torch.cat([adaptive_max_pool2d(peer, n).flatten(1) for n in (3, 1)], 1)
    assert expected.isnan().sum() == 4
    assert torch.equal(rows.isnan(), expected.isnan())
    assert torch.equal(rows.nan_to_num(7), expected.nan_to_num(7))
    rows.sum().backward()
    expected.sum().backward()
    assert leaf.grad is not None
    assert peer.grad is not None
    assert torch.equal(leaf.grad, peer.grad)


@pytest.mark.usefixtures("one_thread")
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 5, 16, 33]),
    levels=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
@settings(deadline=None, max_examples=40)
def test_whole_maps_of_any_size(
    height: int, width: int, channels: int, levels: list[int], dtype: torch.dtype
) -> None:
    maps = small_integers(2, channels, height, width, seed=height).to(dtype)
    whole = [torch.tensor([[0, 0, width, height]])] * 2
    grad = small_integers(2, channels * sum(n * n for n in levels), seed=width).to(dtype)
    expected = torch_gradient(maps, whole, tuple(levels), grad)
    leaf = maps.clone().requires_grad_()
    spatial_pyramid_pool(leaf, levels).backward(grad)
    assert leaf.grad is not None
    assert torch.equal(leaf.grad.double(), expected.to(dtype).double())
    several = [m.clone().requires_grad_() for m in maps]
    spatial_pyramid_pool(several, levels).backward(grad)
    assert all(torch.equal(m.grad, g) for m, g in zip(several, leaf.grad, strict=True) if m.grad is not None)


@pytest.mark.parametrize("shape", [(40, 72, 7, 6), (20, 80, 40, 39)])
def test_blocks_of_whole_maps_that_are_read_and_written_together(
    shape: tuple[int, ...],
) -> None:
    # Enough maps that a thread takes several blocks of one at a time; the last of 72 channels' blocks is not
    # a whole one, and the larger maps' gradients are written past the caches.
    maps = small_integers(*shape, seed=4).to(memory_format=torch.channels_last)
    leaf = maps.clone().requires_grad_()
    got = spatial_pyramid_pool(leaf, LEVELS)
    assert torch.equal(got, spatial_pyramid_pool(maps.double(), LEVELS).float())
    grad = small_integers(*got.shape, seed=5)
    got.backward(grad)
    double = maps.double().requires_grad_()
    rows = [adaptive_max_pool2d(double, n).flatten(2) for n in LEVELS]
    torch.cat([row.flatten(1) for row in rows], 1).backward(grad.double())
    assert leaf.grad is not None
    assert double.grad is not None
    assert torch.equal(leaf.grad.double(), double.grad)


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_gradcheck(mode: str) -> None:
    generator = torch.Generator().manual_seed(4)
    # Values a step apart, so that no small change makes another cell the largest.
    maps = (
        torch.randperm(2 * 3 * 7 * 6, generator=generator).double().view(2, 3, 7, 6).div(7).requires_grad_()
    )
    regions = [torch.tensor([[0, 0, 6, 7], [1, 2, 3, 3], [5, 6, 6, 7]]), torch.tensor([[2, 0, 6, 5]])]
    assert gradcheck(lambda m: region_pyramid_pool(m, regions, (4, 2, 1), mode), (maps,))
    assert gradcheck(lambda m: spatial_pyramid_pool(m, (3, 9), mode), (maps,))
    first, second = (m.detach().requires_grad_() for m in (maps[0], maps[1, :, :4, 2:]))
    assert gradcheck(lambda a, b: spatial_pyramid_pool([a, b], (2, 1), mode), (first, second))


def test_mean_gradient_in_half_and_single() -> None:
    maps = torch.randn(1, 20, 11, 9, generator=torch.Generator().manual_seed(5))
    regions = [torch.tensor([[0, 0, 9, 11], [3, 3, 4, 4], [1, 0, 8, 6]])]
    grads: dict[torch.dtype, Tensor] = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        leaf = maps.to(dtype, copy=True).requires_grad_()
        region_pyramid_pool(leaf, regions, (4, 1), "mean").sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        grads[dtype] = leaf.grad.double()
    torch.testing.assert_close(grads[torch.float32], grads[torch.float64], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grads[torch.bfloat16], grads[torch.float64], rtol=1e-2, atol=1e-2)


def test_a_map_of_more_cells_than_half_a_word_counts() -> None:
    # Half floats pack 16 bits of value with 16 bits of place, up to 65,535 cells.
    maps = small_integers(1, 3, 300, 301, seed=6).to(torch.bfloat16)
    grad = torch.ones(1, 3 * 5, dtype=torch.bfloat16)
    whole = [torch.tensor([[0, 0, 301, 300]])]
    assert torch.equal(
        our_gradient(maps, whole, (2, 1), grad).double(), torch_gradient(maps, whole, (2, 1), grad)
    )


@pytest.mark.parametrize("budget", [1, 300_000])
def test_gradient_with_small_tables_is_the_same(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = small_integers(1, 9, 40, 33, seed=7)
    generator = torch.Generator().manual_seed(8)
    x = torch.randint(0, 33, (300, 2), generator=generator).sort(1).values
    y = torch.randint(0, 40, (300, 2), generator=generator).sort(1).values
    regions = [torch.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], 1)]
    grad = small_integers(300, 9 * 14, seed=9)
    expected = our_gradient(maps, regions, (3, 2, 1), grad)
    monkeypatch.setattr(_plan, "_TABLE_BYTES", budget)
    assert torch.equal(our_gradient(maps, regions, (3, 2, 1), grad), expected)


def test_only_what_needs_a_gradient_gets_one() -> None:
    first, second = torch.randn(3, 4, 4, requires_grad=True), torch.randn(3, 5, 6)
    spatial_pyramid_pool([first, second], (2,)).sum().backward()
    assert first.grad is not None
    assert second.grad is None


def test_maps_without_regions_get_zeros() -> None:
    maps = torch.randn(2, 3, 4, 4, requires_grad=True)
    none = torch.zeros(0, 4, dtype=torch.int64)
    region_pyramid_pool(maps, [none, torch.tensor([[0, 0, 2, 2]])], (1,)).sum().backward()
    assert maps.grad is not None
    assert maps.grad[0].abs().sum() == 0
    assert maps.grad[1].sum() == 3
    maps.grad = None
    region_pyramid_pool(maps, [none, none]).sum().backward()
    assert maps.grad is not None
    assert maps.grad.abs().sum() == 0

"""Values and gradients of the pooling operations over device, dtype, memory layout and mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import pool_crops
from plain import pool_plain
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import adaptive_max_pool2d

from sppnet.ops import region_pyramid_pool, spatial_pyramid_pool

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
LAYOUTS = ["contiguous", "channels_last", "transposed", "sliced", "expanded"]
LEVELS = (4, 3, 2, 1)

pytestmark = pytest.mark.usefixtures("one_thread")


def lay_out(maps: Tensor, layout: str) -> Tensor:
    """The same values with other strides; "expanded" repeats the first channel."""
    if layout == "channels_last":
        return maps.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return maps.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "sliced":
        b, c, h, w = maps.shape
        large = torch.full((b, 2 * c + 1, h + 2, 3 * w), float("nan"), dtype=maps.dtype, device=maps.device)
        part = large[:, 1::2, 1:-1, 1::3]
        part.copy_(maps)
        return part
    if layout == "expanded":
        return maps[:, :1].expand_as(maps)
    return maps


def random_regions(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    x = torch.randint(0, width, (count, 2), generator=generator).sort(1).values
    y = torch.randint(0, height, (count, 2), generator=generator).sort(1).values
    return torch.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], 1)


def whole_regions(maps: Sequence[Tensor] | Tensor) -> list[Tensor]:
    return [torch.tensor([[0, 0, one.shape[2], one.shape[1]]]) for one in maps]


def small_integers(*shape: int, seed: int) -> Tensor:
    """Seven different values: sums are exact in any order, and nearly every bin has several maxima."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, list[int], str]:
    levels = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    batch, channels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 7, 16, 19, 33]))
    maps = torch.randn(
        batch, channels, height, width, generator=torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    )
    maps = lay_out(maps.to(draw(st.sampled_from(DTYPES))), draw(st.sampled_from(LAYOUTS)))
    return maps, levels, draw(st.sampled_from(["max", "mean"]))


class PyramidOpTester:
    """What holds for every pooling operation; subclasses name the operation and the regions it pools."""

    def pool(self, maps: Tensor, levels: Sequence[int], mode: str) -> Tensor:
        raise NotImplementedError

    def regions(self, maps: Tensor) -> list[Tensor]:
        """The regions of each map that `pool` pools, on the CPU."""
        return whole_regions(maps)

    def expected(self, maps: Tensor, levels: Sequence[int], mode: str) -> Tensor:
        return pool_plain(maps.cpu(), self.regions(maps), levels, mode)

    def assert_pools(self, maps: Tensor, levels: Sequence[int], mode: str) -> None:
        got, expected = self.pool(maps, levels, mode).cpu(), self.expected(maps, levels, mode)
        assert got.dtype == maps.dtype
        # Maxima are exact; means are rounded on the way, in one order or another, values being about 1.
        step = 0.0 if mode == "max" else 4 * torch.finfo(got.dtype).eps
        torch.testing.assert_close(got, expected, rtol=step, atol=step, equal_nan=True)

    def gradient(self, maps: Tensor, levels: Sequence[int], mode: str, grad: Tensor) -> Tensor:
        leaf = maps.detach().requires_grad_()
        self.pool(leaf, levels, mode).backward(grad.to(maps.device))
        assert leaf.grad is not None
        return leaf.grad

    def expected_gradient(self, maps: Tensor, levels: Sequence[int], mode: str, grad: Tensor) -> Tensor:
        leaf = maps.detach().cpu().double().requires_grad_()
        pool_crops(leaf, self.regions(maps), levels, mode).backward(grad.double())
        assert leaf.grad is not None
        return leaf.grad

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("mode", ["max", "mean"])
    def test_forward(self, device: str, dtype: torch.dtype, layout: str, mode: str) -> None:
        maps = torch.randn(2, 17, 6, 7, generator=torch.Generator().manual_seed(1)) - 2
        self.assert_pools(lay_out(maps.to(device, dtype), layout), (3, 2), mode)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("layout", LAYOUTS[:4])
    @pytest.mark.parametrize("mode", ["max", "mean"])
    def test_backward(self, device: str, dtype: torch.dtype, layout: str, mode: str) -> None:
        # The gradient of a maximum goes to the first of equal cells.
        maps = lay_out(small_integers(2, 35, 11, 13, seed=1).to(device, dtype), layout)
        rows = self.pool(maps, LEVELS, mode)
        # Few ones among zeros: half floats then hold every sum.
        grad = (small_integers(*rows.shape, seed=3) == 3).to(dtype)
        got, expected = (
            self.gradient(maps, LEVELS, mode, grad),
            self.expected_gradient(maps, LEVELS, mode, grad),
        )
        assert got.dtype == dtype
        assert got.stride() == maps.stride() or layout == "sliced"
        step = 0.0 if mode == "max" else 16 * torch.finfo(dtype).eps
        torch.testing.assert_close(got.cpu().double(), expected, rtol=step, atol=step)

    @pytest.mark.parametrize("mode", ["max", "mean"])
    def test_gradcheck(self, mode: str) -> None:
        # Values a step apart, so that no small change makes another cell the largest.
        order = torch.randperm(2 * 2 * 5 * 4, generator=torch.Generator().manual_seed(4))
        maps = order.double().view(2, 2, 5, 4).div(7).requires_grad_()
        assert gradcheck(lambda m: self.pool(m, (3, 2), mode), (maps,), check_forward_ad=True, fast_mode=True)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("sign", [1, -1])
    def test_nan_spreads_to_the_bins_that_hold_it_and_no_further(self, dtype: torch.dtype, sign: int) -> None:
        maps = torch.randn(2, 18, 9, 8, generator=torch.Generator().manual_seed(7)).to(dtype)
        maps[0, 3, 5, 7] = float("nan")
        # 0 / 0 gives a NaN with its sign bit set, which as an integer is the smallest.
        maps[0, 3] *= sign
        maps[0, 4, 2, 2], maps[1, 5] = float("inf"), float("-inf")
        got = self.pool(maps, (3, 2, 1), "max")
        expected = pool_crops(maps.double(), self.regions(maps), (3, 2, 1), "max").to(dtype)
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)

    @pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
    def test_gradient_with_nan_of_either_sign(self, layout: str) -> None:
        maps = torch.randn(2, 33, 9, 9, generator=torch.Generator().manual_seed(4))
        odd = torch.from_numpy(np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32))
        maps[0, 3, 2, 2], maps[1, 32, 8, 8], maps[1, 32, 0, 0] = odd[1], odd[0], -torch.inf
        maps = lay_out(maps, layout)
        rows = self.pool(maps.clone().requires_grad_(), (3, 1), "max")
        expected = pool_crops(maps, self.regions(maps), (3, 1), "max")
        torch.testing.assert_close(rows.detach(), expected, rtol=0, atol=0, equal_nan=True)
        grad = torch.ones(rows.shape)
        assert torch.equal(
            self.gradient(maps, (3, 1), "max", grad).double(),
            self.expected_gradient(maps, (3, 1), "max", grad),
        )

    @pytest.mark.parametrize("shape", [(2, 0, 4, 4), (1, 3, 1, 1)])
    def test_empty_channels_and_single_cells(self, shape: tuple[int, ...]) -> None:
        maps = torch.randn(shape)
        rows = self.pool(maps.requires_grad_(), (3, 1), "max")
        assert rows.shape == (sum(map(len, self.regions(maps))), shape[1] * 10)
        assert rows.unique().numel() == shape[1]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_means_are_rounded_once_and_stay_in_their_bins(self, dtype: torch.dtype) -> None:
        maps = torch.ones(2, 1, 8, 8, dtype=dtype)
        maps[:, 0, 0, 0], maps[:, 0, 7, 7] = 1e30, float("inf")
        got = self.pool(maps, (8,), "mean")
        expected = pool_crops(maps.double(), self.regions(maps), (8,), "mean").to(dtype)
        assert torch.equal(got, expected)


class TestWholeMaps(PyramidOpTester):
    def pool(self, maps: Tensor, levels: Sequence[int], mode: str) -> Tensor:
        return spatial_pyramid_pool(maps, levels, mode)


class TestListOfMaps(PyramidOpTester):
    """Maps of two sizes: the first without its last rows."""

    def pool(self, maps: Tensor, levels: Sequence[int], mode: str) -> Tensor:
        return spatial_pyramid_pool([maps[0, :, : -(-maps.shape[2] // 2)], *maps[1:]], levels, mode)

    def regions(self, maps: Tensor) -> list[Tensor]:
        found = whole_regions(maps)
        found[0][0, 3] = -(-maps.shape[2] // 2)
        return found


class TestRegions(PyramidOpTester):
    def pool(self, maps: Tensor, levels: Sequence[int], mode: str) -> Tensor:
        return region_pyramid_pool(maps, self.regions(maps), levels, mode)

    def regions(self, maps: Tensor) -> list[Tensor]:
        generator = torch.Generator().manual_seed(maps.shape[2] * 100 + maps.shape[3])
        counts = [3, 0, 2][: len(maps)]
        found = [random_regions(n, maps.shape[2], maps.shape[3], generator) for n in counts]
        return [torch.cat([found[0], whole_regions(maps)[0]]), *found[1:]]


class TestManyRegions(TestRegions):
    """So many that tables of maxima are used."""

    def regions(self, maps: Tensor) -> list[Tensor]:
        generator = torch.Generator().manual_seed(maps.shape[2])
        few = random_regions(12, maps.shape[2], maps.shape[3], generator)
        return [few.repeat(6, 1), *[few[:5]] * (len(maps) - 1)]


@given(
    case=cases(),
    tester=st.sampled_from([TestWholeMaps(), TestListOfMaps(), TestRegions(), TestManyRegions()]),
)
@settings(deadline=None, max_examples=80)
def test_any_size_levels_and_type(case: tuple[Tensor, list[int], str], tester: PyramidOpTester) -> None:
    maps, levels, mode = case
    got = tester.pool(maps, levels, mode)
    expected = pool_crops(maps.double(), tester.regions(maps), levels, mode).to(got.dtype)
    step = 0.0 if mode == "max" else 4 * torch.finfo(got.dtype).eps
    torch.testing.assert_close(got, expected, rtol=step, atol=step)
    whole = maps.mul(2).round().clone()
    grad = (small_integers(*got.shape, seed=3) == 3).to(maps.dtype)
    given = tester.gradient(whole, levels, mode, grad)
    expected = tester.expected_gradient(whole, levels, mode, grad)
    # Sums of many ones are not exact in bfloat16.
    step = 0.0 if mode == "max" and maps.dtype != torch.bfloat16 else 64 * torch.finfo(got.dtype).eps
    torch.testing.assert_close(given.double(), expected, rtol=step, atol=step)


def test_every_height_and_width_to_40_with_levels_1_to_8_equals_adaptive_pooling() -> None:
    levels = (1, 2, 3, 4, 5, 6, 7, 8)
    # Mostly below zero: a maximum that starts at 0 would show.
    maps = torch.randn(1, 5, 40, 40, generator=torch.Generator().manual_seed(1)) - 2
    generator = torch.Generator().manual_seed(5)
    rows = []
    for height in range(1, 41):
        for width in range(1, 41):
            x = int(torch.randint(0, 41 - width, (), generator=generator))
            y = int(torch.randint(0, 41 - height, (), generator=generator))
            rows.append([x, y, x + width, y + height])
    regions = torch.tensor(rows)
    crops = [maps[0, :, y0:y1, x0:x1] for x0, y0, x1, y1 in rows]
    expected = pool_crops(maps, [regions], levels, "max")
    assert (expected < 0).float().mean() > 0.3
    assert torch.equal(region_pyramid_pool(maps, [regions], levels), expected)
    assert torch.equal(spatial_pyramid_pool(crops, levels), expected)


def test_means_are_rounded_once() -> None:
    # In float32 the small terms would be lost one by one.
    maps = torch.full((1, 1, 1, 4097), 2.0**-13)
    maps[..., 0] = 2.0**11
    exact = (2.0**11 + 4096 * 2.0**-13) / 4097
    assert spatial_pyramid_pool(maps, (1,), "mean").item() == torch.tensor(exact).item()


def test_an_empty_batch() -> None:
    assert spatial_pyramid_pool(torch.zeros(0, 5, 4, 4), (3, 1)).shape == (0, 50)
    assert region_pyramid_pool(torch.zeros(0, 5, 4, 4), [], (3, 1)).shape == (0, 50)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_any_integer_type_of_regions(dtype: torch.dtype) -> None:
    maps = torch.randn(1, 3, 9, 9)
    regions = torch.tensor([[0, 1, 5, 9], [2, 2, 3, 3]])
    assert torch.equal(region_pyramid_pool(maps, [regions.to(dtype)]), region_pyramid_pool(maps, [regions]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_zeros_of_both_signs_are_equal(sign: float) -> None:
    maps = torch.tensor([[[[0.0 * sign, -0.0 * sign]]]]).requires_grad_()
    spatial_pyramid_pool(maps, (1,)).backward(torch.ones(1, 1))
    assert maps.grad is not None
    assert maps.grad.flatten().tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(40, 72, 7, 6), (20, 80, 40, 39)])
def test_blocks_of_whole_maps_that_are_read_and_written_together(shape: tuple[int, ...]) -> None:
    # Enough maps that a thread takes several blocks of one at a time; the last of 72 channels' blocks is not
    # a whole one, and the gradients of the larger maps are written past the caches.
    maps = small_integers(*shape, seed=4).contiguous(memory_format=torch.channels_last)
    leaf, double = maps.clone().requires_grad_(), maps.double().requires_grad_()
    got = spatial_pyramid_pool(leaf, LEVELS)
    expected = torch.cat([adaptive_max_pool2d(double, n).flatten(1) for n in LEVELS], 1)
    assert torch.equal(got, expected.float())
    grad = small_integers(*got.shape, seed=5)
    got.backward(grad)
    expected.backward(grad.double())
    assert leaf.grad is not None
    assert double.grad is not None
    assert torch.equal(leaf.grad.double(), double.grad)


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

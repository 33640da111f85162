"""A program, run with TRITON_INTERPRET=1: the GPU kernels through Triton's interpreter against the CPU.

Arguments: the numbers of the cases, or none for all.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from sppnet.ops import region_pyramid_pool, spatial_pyramid_pool
from sppnet.ops.gpu import backward, backward_levels, dispatch, forward, tables

CASES = [
    (torch.float32, (6, 3, 2, 1), 1, 8),
    (torch.bfloat16, (4, 5, 2), 2, 8),
    (torch.float16, (3, 4, 1), 2, 2),
]
"""Type, levels, number of maps, and the largest level that is held in registers and not pooled bin by bin."""


def assert_close(got: Tensor, expected: Tensor, mode: str) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if mode == "max":
        assert torch.equal(got.nan_to_num(7), expected.nan_to_num(7))
        assert torch.equal(got.isnan(), expected.isnan())
    else:
        step = torch.finfo(got.dtype).eps
        torch.testing.assert_close(got, expected, rtol=8 * step, atol=8 * step, equal_nan=True)


def joined(regions: list[Tensor]) -> tables.Regions:
    counts = torch.tensor([len(one) for one in regions])
    return tables.Regions(torch.cat(regions), counts.cumsum(0) if len(regions) > 1 else None)


def check_values(maps: Tensor, regions: list[Tensor], levels: tuple[int, ...], mode: str) -> None:
    odd = maps.clone()
    odd[0, 1, 3, 3], odd[0, 2], odd[-1, 0] = float("nan"), -float("inf"), -0.0
    layouts = [odd, odd.contiguous(memory_format=torch.channels_last)][: 2 if mode == "max" else 1]
    for laid in layouts:
        rows, inside = dispatch.pool_regions(laid, joined(regions), levels, mode, True)
        assert inside
        assert_close(rows, region_pyramid_pool(odd, regions, levels, mode), mode)
    assert_close(dispatch.pool(odd, levels, mode), spatial_pyramid_pool(odd, levels, mode), mode)
    several = [odd[0, :, 1:], odd[-1, :, :2, 2:]]
    assert_close(dispatch.pool(several, levels, mode), spatial_pyramid_pool(several, levels, mode), mode)


def check_gradients(
    maps: Tensor, regions: list[Tensor], levels: tuple[int, ...], mode: str, generator: torch.Generator
) -> None:
    leaf = maps.clone().requires_grad_()
    for boxes, rows in (
        (joined(regions), region_pyramid_pool(leaf, regions, levels, mode)),
        (None, spatial_pyramid_pool(leaf, levels, mode)),
    ):
        grad = torch.randint(-2, 3, rows.shape, generator=generator).to(maps.dtype)
        leaf.grad = None
        rows.backward(grad)
        (got,) = dispatch.pool_backward(grad, maps, boxes, levels, mode)
        assert leaf.grad is not None
        assert_close(got, leaf.grad, mode)
    several = [maps[0, :, 1:], maps[-1, :, :2, 2:]]
    leaves = [m.detach().clone().requires_grad_() for m in several]
    rows = spatial_pyramid_pool(leaves, levels, mode)
    grad = torch.randint(-2, 3, rows.shape, generator=generator).to(maps.dtype)
    rows.backward(grad)
    for got, one in zip(dispatch.pool_backward(grad, several, None, levels, mode), leaves, strict=True):
        assert one.grad is not None
        assert_close(got, one.grad, mode)


def check_odd_gradients_and_regions() -> None:
    maps = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    grad = torch.ones(1, 2)
    grad[0, 1] = float("inf")
    (got,) = dispatch.pool_backward(grad, maps, None, (1,), "max")
    assert got[0, 0].sum() == 1
    assert got[0, 0].count_nonzero() == 1
    assert got[0, 1].isnan().all()
    for one, wrong in (([0, 0, 4, 4], 0), ([-5, 2, 99, -7], 1)):
        bad = torch.zeros(1, dtype=torch.int32)
        boxes = joined([torch.tensor([one])])
        form = tables.form_of_regions(boxes, True)
        plan = tables.preparation(tables.form_of(maps), None, False, form)
        _, table = tables.prepare(plan, 0, maps, boxes, bad)
        assert bad.item() == wrong
    assert table.tolist() == [[0, 0, 0, 4, 0, 2, 4, 3]]


def main(numbers: list[str]) -> None:
    for dtype, levels, batch, largest in [CASES[int(n)] for n in numbers] or CASES:
        forward.LARGEST = backward_levels.LARGEST = largest
        generator = torch.Generator().manual_seed(1)
        maps = torch.randint(-4, 3, (batch, 3, 4, 5), generator=generator).to(dtype)
        regions = [torch.tensor([[0, 0, 5, 4], [1, 2, 5, 4]]), torch.tensor([[4, 3, 5, 4]])][:batch]
        if batch == 1:
            # So many that tables of maxima pay off.
            regions = [torch.cat([regions[0], torch.tensor([[0, 0, 4, 3], [1, 0, 3, 4], [2, 2, 3, 3]])])]
        for mode in ("max", "mean"):
            check_values(maps, regions, levels, mode)
            check_gradients(maps, regions, levels, mode, generator)
        forward.plan.cache_clear(), forward.pooling.cache_clear()
        backward_levels.launched_levels.cache_clear(), backward._backward.cache_clear()
    check_odd_gradients_and_regions()


if __name__ == "__main__":
    main(sys.argv[1:])

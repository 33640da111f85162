"""What a program sets as torch's default device and type is not for the memory that kernels write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sppnet.ops import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool
from sppnet.ops.boxes import decode_deltas, encode_deltas, iou, nms, vote
from sppnet.ops.linear import curved_products, row_products, row_sums


def _results() -> list[Tensor]:
    draw = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float32, "device": "cpu"}
    cells = {"dtype": torch.int64, "device": "cpu"}
    maps, many = torch.randn(2, 20, 13, 9, **draw), torch.randn(1, 64, 30, 30, **draw)
    regions = [torch.tensor([[0, 0, 5, 5], [1, 2, 9, 13]], **cells)] * 2
    boxes = [torch.tensor([[0, 0, 14, 14], [3, 5, 30, 21]], **cells).repeat(700, 1)]
    weight, square = torch.randn(3, 20 * 14, **draw), torch.rand(40, 4, **draw).cumsum(1)
    wide = torch.randn(3, 64 * 50, **draw)
    results = [
        spatial_pyramid_pool(maps),
        spatial_pyramid_pool([maps[0], maps[1, :, :4]], mode="mean"),
        region_pyramid_pool(maps, regions),
        region_pyramid_pool(many, boxes),
        region_pyramid_scores(maps, regions, weight, None, (3, 2, 1)),
        region_pyramid_scores(many, boxes, wide),
        row_products(wide, wide[:2]),
        row_sums(wide, square[:2, :3].contiguous()),
        *curved_products(wide, wide[:2], square[0, :2], square[:2, :3].contiguous()),
        nms(square, square[:, 0], 0.3),
        decode_deltas(square, encode_deltas(square, square.flip(0))),
        vote(square[:3], square, square[:, 0], 0.3),
        iou(square, square),
    ]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for mode in ("max", "mean"):
            leaf = maps.to(dtype).detach().clone().requires_grad_()
            rows = [spatial_pyramid_pool(leaf, mode=mode), region_pyramid_pool(leaf, regions, mode=mode)]
            torch.cat([*rows, spatial_pyramid_pool(list(leaf), mode=mode)]).sum().backward()
            assert leaf.grad is not None
            results += [*(one.detach() for one in rows), leaf.grad]
    return results


@pytest.fixture
def defaults() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(dtype)


@pytest.mark.usefixtures("defaults")
@pytest.mark.parametrize(
    ("device", "dtype"),
    [("meta", torch.float32), ("cpu", torch.float64), ("cpu", torch.float16), ("meta", torch.bfloat16)],
)
def test_defaults_change_nothing(device: str, dtype: torch.dtype) -> None:
    expected = _results()
    torch.set_default_device(device)
    torch.set_default_dtype(dtype)
    for ours, theirs in zip(_results(), expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.device == theirs.device
        assert torch.equal(ours, theirs)

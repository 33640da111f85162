from __future__ import annotations

import pytest
import torch
from torch import nn

from sppnet.errors import UserError
from sppnet.nn import RegionPyramidPool2d, SpatialPyramidPool2d
from sppnet.ops import region_pyramid_pool, spatial_pyramid_pool


def test_the_modules_do_what_the_functions_do() -> None:
    maps = torch.randn(2, 3, 8, 9)
    regions = [torch.tensor([[0, 0, 9, 8]]), torch.tensor([[1, 2, 3, 4]])]
    for levels, mode in (((6, 3, 2, 1), "max"), ((4, 1), "mean")):
        assert torch.equal(SpatialPyramidPool2d(levels, mode)(maps), spatial_pyramid_pool(maps, levels, mode))
        assert torch.equal(
            RegionPyramidPool2d(levels, mode)(maps, regions), region_pyramid_pool(maps, regions, levels, mode)
        )
    assert torch.equal(SpatialPyramidPool2d()(list(maps)), spatial_pyramid_pool(maps))


def test_they_only_store_their_arguments() -> None:
    pool = SpatialPyramidPool2d([3, 1], "mean")
    assert pool.levels == (3, 1)
    assert pool.mode == "mean"
    assert pool.bins == 10
    assert list(pool.state_dict()) == []
    assert repr(pool) == "SpatialPyramidPool2d(levels=(3, 1), mode='mean')"
    assert repr(RegionPyramidPool2d()) == "RegionPyramidPool2d(levels=(6, 3, 2, 1), mode='max')"


def test_a_network_takes_any_size_and_learns() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), SpatialPyramidPool2d((2, 1)), nn.Linear(40, 2))
    for height, width in ((5, 9), (12, 4), (1, 1)):
        network.zero_grad()
        network(torch.randn(2, 3, height, width)).sum().backward()
        assert network[0].weight.grad.abs().sum() > 0


def test_bad_arguments_are_told_when_the_module_is_made() -> None:
    with pytest.raises(UserError, match="levels"):
        SpatialPyramidPool2d(())
    with pytest.raises(UserError, match="mode"):
        RegionPyramidPool2d(mode="sum")


def test_boxes_in_pixels() -> None:
    maps, boxes = torch.randn(1, 3, 8, 9), torch.tensor([[0, 8.0, 8.0, 90.0, 60.0]])
    pool = RegionPyramidPool2d((2, 1), "avg", spatial_scale=1 / 16)
    expected = region_pyramid_pool(maps, torch.tensor([[0, 0, 6, 4]]), (2, 1), "mean")
    assert torch.equal(pool(maps, boxes), expected)
    assert repr(pool) == "RegionPyramidPool2d(levels=(2, 1), mode='mean', spatial_scale=0.0625)"

"""Whatever is wrong with the input is said, and nothing is read out of range."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool

MAPS = torch.randn(2, 3, 5, 7)
GOOD = torch.tensor([[0, 0, 7, 5]])


@pytest.mark.parametrize(
    "box",
    [
        [-1, 0, 3, 3],
        [0, -1, 3, 3],
        [0, 0, 8, 5],
        [0, 0, 7, 6],
        [3, 0, 3, 5],
        [4, 0, 3, 5],
        [0, 2, 7, 2],
        [0, 3, 7, 2],
        [2**62, 0, 2**62 + 1, 5],
        [-(2**63), 0, 2**63 - 1, 5],
        [7, 0, 8, 5],
    ],
)
def test_the_first_region_out_of_range_is_named(box: list[int]) -> None:
    regions = [GOOD, torch.tensor([[0, 0, 1, 1], [6, 4, 7, 5], box, [9, 9, 9, 9]])]
    for call in (region_pyramid_pool, lambda m, r: region_pyramid_scores(m, r, torch.randn(1, 150))):
        with pytest.raises(
            UserError, match=r"regions\[1\]\[2\]: expected 0 <= x0 < x1 <= 7 and 0 <= y0"
        ) as caught:
            call(MAPS, regions)
        assert str(box) in str(caught.value)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([GOOD], r"regions: expected one tensor for each of the 2 maps, got 1"),
        ([GOOD, GOOD, GOOD], r"regions: expected one tensor for each of the 2 maps, got 3"),
        ([GOOD, GOOD[0]], r"regions\[1\]: expected a tensor \[N, 4\], got shape \[4\]"),
        ([GOOD, GOOD[:, :3]], r"regions\[1\]: expected a tensor \[N, 4\], got shape \[1, 3\]"),
        ([GOOD.float(), GOOD], r"regions\[0\]: expected integer cells .*, got torch.float32"),
        ([GOOD, GOOD * float("nan")], r"regions\[1\]: expected integer cells"),
        ([GOOD, GOOD.bool()], r"regions\[1\]: expected integer cells"),
        ([GOOD, GOOD.to("meta")], r"regions\[1\]: expected a tensor on cpu, as the maps, or cpu, got meta"),
    ],
)
def test_regions_of_another_kind_are_refused(regions: list[Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        region_pyramid_pool(MAPS, regions)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (
            torch.zeros(3, 5, 5),
            r"maps: expected a tensor \[B, C, H, W\], H and W at least 1, got shape \[3, 5, 5\]",
        ),
        (torch.zeros(1, 3, 0, 5), r"got shape \[1, 3, 0, 5\]"),
        (torch.zeros(1, 3, 5, 0), r"got shape \[1, 3, 5, 0\]"),
        (
            torch.zeros(1, 3, 5, 5, dtype=torch.int32),
            r"maps: expected float32, float16, bfloat16 or float64, got",
        ),
        ([], r"maps: expected at least one map, got an empty sequence"),
        (
            [torch.zeros(3, 5, 5), torch.zeros(4, 5, 5)],
            r"maps\[1\]: expected a tensor \[C, H, W\], C as in maps\[0\]",
        ),
        ([torch.zeros(3, 5, 5), torch.zeros(3, 0, 5)], r"maps\[1\]: .*got shape \[3, 0, 5\]"),
        ([torch.zeros(3, 5, 5), torch.zeros(3, 5, 5).double()], r"maps\[1\]: expected torch.float32 on cpu"),
    ],
)
def test_maps_of_another_kind_are_refused(maps: Tensor | list[Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        spatial_pyramid_pool(maps)


def test_words_and_levels() -> None:
    with pytest.raises(UserError, match='mode: expected "max" or "mean", got \'sum\''):
        spatial_pyramid_pool(MAPS, mode="sum")
    with pytest.raises(UserError, match='order: expected "channels" or "bins", got \'rows\''):
        region_pyramid_pool(MAPS, [GOOD, GOOD], order="rows")
    with pytest.raises(UserError, match="levels: expected one or more"):
        region_pyramid_pool(MAPS, [GOOD, GOOD], (3, 0))
    with pytest.raises(ValueError, match="levels"):
        spatial_pyramid_pool(MAPS, ())

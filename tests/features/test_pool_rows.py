"""Boxes to rows, against adaptive pooling of crops, box by box."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sppnet.errors import UserError
from sppnet.features import cells, choose_scale, image_rows, iter_rows, pool_rows, row_length, score_rows
from sppnet.structures import Boxes, FeatureMap, FeatureMaps, Grid, ImageSize

IMAGE = ImageSize(60, 90)
LEVELS = (3, 2, 1)


def _maps(dtype: torch.dtype = torch.float32, scales: Sequence[int] = (60, 120)) -> FeatureMaps:
    """Two layers at each scale; values on both sides of 0."""
    torch.manual_seed(0)
    maps: list[FeatureMap] = []
    for scale in scales:
        resized = ImageSize(scale, scale * 3 // 2)
        for layer, channels, stride in (("fine", 5, 4), ("coarse", 3, 8)):
            height, width = resized.height // stride, resized.width // stride
            values = torch.randn(channels, height, width).to(dtype)
            maps.append(FeatureMap(values, layer, Grid(float(stride), stride / 2), resized, IMAGE))
    return FeatureMaps(tuple(maps))


def _boxes(count: int, seed: int = 1) -> Boxes:
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * torch.tensor([80.0, 50.0])
    side = torch.rand(count, 2, generator=random) * 50
    return Boxes(torch.cat([corner, corner + side], 1), IMAGE)


def _loop(maps: FeatureMaps, boxes: Boxes, levels: Sequence[int], mode: str, target: float) -> Tensor:
    pool = functional.adaptive_max_pool2d if mode == "max" else functional.adaptive_avg_pool2d
    rows: list[Tensor] = []
    for n in range(len(boxes)):
        one = boxes[n : n + 1]
        parts: list[Tensor] = []
        for layer in maps.layers:
            of_layer = maps.of_layer(layer)
            fmap = of_layer[int(choose_scale(one, of_layer, target))]
            x0, y0, x1, y1 = cells(one, fmap)[0].tolist()
            crop = fmap.values[:, y0:y1, x0:x1].float()
            parts += [pool(crop, n).flatten() for n in levels]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("mode", "dtype", "count"),
    [
        ("max", torch.float32, 1),
        ("max", torch.float32, 600),  # above some hundreds, equal windows are merged
        ("mean", torch.float32, 40),
        ("max", torch.bfloat16, 40),
        ("mean", torch.bfloat16, 40),
    ],
)
def test_rows_equal_adaptive_pooling_of_crops(mode: str, dtype: torch.dtype, count: int) -> None:
    maps, boxes = _maps(dtype), _boxes(count)
    rows = pool_rows(maps, boxes, LEVELS, mode, 900.0)
    assert rows.dtype == torch.float32
    assert rows.shape == (count, row_length(maps, LEVELS)) == (count, 8 * 14)
    tolerance = 0 if mode == "max" else (1e-5 if dtype == torch.float32 else 2e-2)
    expected = _loop(maps, boxes, LEVELS, mode, 900.0)
    torch.testing.assert_close(rows, expected, rtol=0, atol=tolerance)


def test_both_scales_are_used_in_that_test() -> None:
    chosen = choose_scale(_boxes(40), _maps().of_layer("fine"), 900.0)
    assert 0 < int(chosen.sum()) < 40


@pytest.mark.parametrize("scales", [(60,), (60, 120)])
@pytest.mark.parametrize("repeats", [1, 50])
def test_merging_equal_windows_changes_nothing(scales: tuple[int, ...], repeats: int) -> None:
    maps, few = _maps(scales=scales), _boxes(20)
    order = torch.arange(20).repeat_interleave(repeats)[torch.randperm(20 * repeats)]
    assert torch.equal(pool_rows(maps, few[order], LEVELS), pool_rows(maps, few, LEVELS)[order])


@pytest.mark.parametrize("count", [0, 1, 30, 700])
def test_scores_equal_rows_times_weights(count: int) -> None:
    maps, boxes = _maps(), _boxes(count)
    weight, bias = torch.randn(4, row_length(maps, LEVELS)), torch.randn(4)
    scores = score_rows(maps, boxes, weight, bias, LEVELS, "max", 900.0)
    expected = functional.linear(pool_rows(maps, boxes, LEVELS, "max", 900.0), weight, bias)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limit", [1, 4 * 8 * 14 * 7, 2**30])
def test_pieces_join_to_the_whole_and_stay_within_the_limit(limit: int) -> None:
    maps, boxes = _maps(), _boxes(50)
    pieces = list(iter_rows(maps, boxes, LEVELS, limit_bytes=limit))
    assert torch.equal(torch.cat([rows for _, rows in pieces]), pool_rows(maps, boxes, LEVELS))
    assert [i for piece, _ in pieces for i in range(50)[piece]] == list(range(50))
    for _, rows in pieces:
        assert len(rows) == 1 or rows.numel() * 4 <= limit


def test_no_boxes_give_no_rows() -> None:
    maps = _maps()
    assert pool_rows(maps, Boxes.empty(IMAGE), LEVELS).shape == (0, row_length(maps, LEVELS))
    assert list(iter_rows(maps, Boxes.empty(IMAGE), LEVELS)) == []


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_image_rows_pool_each_whole_map(mode: str) -> None:
    maps = _maps()
    rows = image_rows(maps, LEVELS, mode)
    pool = functional.adaptive_max_pool2d if mode == "max" else functional.adaptive_avg_pool2d
    assert rows.shape == (2, row_length(maps, LEVELS))
    for scale in range(2):
        fine, coarse = (maps.of_layer(layer)[scale].values for layer in ("fine", "coarse"))
        expected = torch.cat([pool(m, n).flatten() for m in (fine, coarse) for n in LEVELS])
        torch.testing.assert_close(rows[scale], expected)


def test_image_rows_give_every_level_the_same_weight() -> None:
    maps = _maps()
    plain, even = image_rows(maps, LEVELS), image_rows(maps, LEVELS, normalise=True)
    start = 0
    for layer in ("fine", "coarse"):
        for n in LEVELS:
            stop = start + n * n * maps.of_layer(layer)[0].values.shape[0]
            part = plain[:, start:stop]
            torch.testing.assert_close(even[:, start:stop], part / part.norm(dim=1, keepdim=True))
            start = stop
    assert start == plain.shape[1]


def test_one_large_value_is_found_by_the_boxes_that_hold_its_cell_and_no_others() -> None:
    values = torch.full((1, 15, 22), -1.0)
    values[0, 7, 11] = 5.0  # its centre: x = 46, y = 30
    maps = FeatureMaps((FeatureMap(values, "one", Grid(4.0, 2.0), IMAGE, IMAGE),))
    inside = [[40.0, 20, 50, 40], [46, 30, 47, 31], [0, 0, 90, 60], [45, 29, 47, 31]]
    outside = [[46.1, 20, 60, 40], [30, 20, 46, 40], [40, 30.1, 50, 40], [0, 0, 10, 10]]
    rows = pool_rows(maps, Boxes(torch.tensor(inside + outside), IMAGE), (1,))
    assert rows[:, 0].tolist() == [5.0] * 4 + [-1.0] * 4


def test_mistakes() -> None:
    maps, other = _maps(), Boxes.empty(ImageSize(90, 60))
    weight = torch.zeros(2, row_length(maps, LEVELS))
    with pytest.raises(UserError, match=r"boxes\.size"):
        pool_rows(maps, other, LEVELS)
    with pytest.raises(UserError, match=r"boxes\.size"):
        score_rows(maps, other, weight, torch.zeros(2), LEVELS)
    with pytest.raises(UserError, match=r"weight: expected a tensor \[K, 112\]"):
        score_rows(maps, _boxes(2), weight[:, 1:], torch.zeros(2), LEVELS)
    with pytest.raises(UserError, match="level"):
        pool_rows(maps, _boxes(2), (0,))

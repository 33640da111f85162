"""Boxes in image pixels: the box-to-cell rule in exact arithmetic, the forms of roi_pool, bad boxes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sppnet.errors import UserError
from sppnet.nn import RegionPyramidPool2d
from sppnet.ops import region_pyramid_pool, region_pyramid_scores
from sppnet.ops.cells import scaled_cells

MAPS = torch.randn(3, 4, 6, 9, generator=torch.Generator().manual_seed(0))
SCALE = 1 / 16
BOXES = [
    torch.tensor([[0.0, 0.0, 144.0, 96.0], [10.0, 20.0, 50.0, 60.0]]),
    torch.zeros(0, 4),
    torch.tensor([[-30.0, 40.0, 500.0, 41.0], [8.0, 8.0, 24.0, 24.0]]),
]
CELLS = [[[0, 0, 9, 6], [1, 1, 3, 4]], [], [[0, 2, 9, 3], [0, 0, 1, 1]]]


def covered(low: Fraction, high: Fraction, stride: Fraction, count: int) -> tuple[int, int]:
    """The rule word by word: the cells whose centres lie in [low, high), or else the nearest one."""
    centres = [(i + Fraction(1, 2)) * stride for i in range(count)]
    inside = [i for i, centre in enumerate(centres) if low <= centre < high]
    if inside:
        return inside[0], inside[-1] + 1
    middle = (low + high) / 2
    # The later of two that are equally near.
    nearest = min(range(count), key=lambda i: (abs(centres[i] - middle), -i))
    return nearest, nearest + 1


edges = st.one_of(
    st.integers(-80, 400).map(float),
    st.integers(-160, 800).map(lambda v: v / 2),
    st.floats(-99, 499, width=32),
)


@given(
    boxes=st.lists(st.tuples(edges, edges, edges, edges), min_size=1, max_size=5),
    stride=st.integers(1, 49),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
@settings(deadline=None)
def test_cells_are_those_whose_centres_lie_inside(
    boxes: list[tuple[float, ...]], stride: int, height: int, width: int
) -> None:
    ordered = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in boxes]
    got = scaled_cells(torch.tensor(ordered), 1 / stride, height, width)
    for row, box in zip(got.tolist(), ordered, strict=True):
        x0, y0, x1, y1 = map(Fraction, box)
        left, right = covered(x0, x1, Fraction(stride), width)
        top, bottom = covered(y0, y1, Fraction(stride), height)
        assert row == [left, top, right, bottom]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_boxes_are_pooled_over_their_cells(dtype: torch.dtype) -> None:
    expected = region_pyramid_pool(MAPS, CELLS)
    boxes = [one.to(dtype) for one in BOXES]
    for form in (boxes, [one.numpy() for one in boxes], [one.tolist() for one in boxes]):
        assert torch.equal(region_pyramid_pool(MAPS, form, spatial_scale=SCALE), expected)
    assert torch.equal(RegionPyramidPool2d(spatial_scale=SCALE)(MAPS, boxes), expected)
    weight = torch.randn(2, 200)
    scores = region_pyramid_scores(MAPS, boxes, weight, spatial_scale=SCALE)
    assert torch.equal(scores, region_pyramid_scores(MAPS, CELLS, weight))
    assert torch.equal(
        region_pyramid_pool(MAPS[:1], boxes[0], spatial_scale=SCALE), region_pyramid_pool(MAPS[:1], CELLS[:1])
    )


@pytest.mark.parametrize("seed", range(5))
def test_rows_with_a_map_index_keep_their_order(seed: int) -> None:
    rows = torch.cat([torch.cat([torch.full((len(b), 1), float(i)), b], 1) for i, b in enumerate(BOXES)])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    expected = region_pyramid_pool(MAPS, CELLS)[order]
    weight = torch.randn(2, 200)
    for form in (rows[order], rows[order].numpy(), rows[order].double()):
        assert torch.equal(region_pyramid_pool(MAPS, form, spatial_scale=SCALE), expected)
        scores = region_pyramid_scores(MAPS, form, weight, spatial_scale=SCALE)
        torch.testing.assert_close(scores, expected @ weight.T, rtol=1e-4, atol=1e-4)
    leaf = MAPS.clone().requires_grad_()
    region_pyramid_pool(leaf, rows[order], spatial_scale=SCALE).sum().backward()
    again = MAPS.clone().requires_grad_()
    region_pyramid_pool(again, CELLS).sum().backward()
    assert torch.equal(leaf.grad, again.grad)
    assert region_pyramid_pool(MAPS, rows[:0], spatial_scale=SCALE).shape == (0, 200)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (
            [[0.0, 0, 9, float("nan")]],
            r"regions\[0\]\[0\]: expected finite numbers, got \[0.0, 0.0, 9.0, nan\]",
        ),
        ([[0.0, 0, 9, 9], [0, 0, float("inf"), 9]], r"regions\[0\]\[1\]: expected finite numbers"),
        ([[9.0, 0, 3, 9]], r"regions\[0\]\[0\]: expected x0 <= x1 and y0 <= y1, got \[9.0, 0.0, 3.0, 9.0\]"),
        ([[1, 2, 3]], r"regions\[0\]: expected float boxes .* got shape \[1, 3\]"),
        ([["a", "b", "c", "d"]], r"regions\[0\]: expected float boxes"),
        (torch.ones(2, 4, dtype=torch.bool), r"regions\[0\]: expected float boxes .*got torch.bool"),
        (torch.ones(2, 6), r"regions\[0\]: expected float boxes .* got shape \[2, 6\]"),
        (
            torch.tensor([[1.0, 0, 0, 9, 9]]),
            r"regions\[0\]\[0\]: expected the index of a map, 0 to 0",
        ),
        (torch.tensor([[-1.0, 0, 0, 9, 9]]), r"regions\[0\]\[0\]: expected the index of a map"),
        (torch.tensor([[0.5, 0, 0, 9, 9]]), r"regions\[0\]\[0\]: expected the index of a map"),
        (torch.tensor([[float("nan"), 0, 0, 9, 9]]), r"regions\[0\]\[0\]: expected the index of a map"),
        (None, r"regions: expected float boxes: a sequence of tensors \[N, 4\], one per map"),
        ([[[0.0, 0, 1, 1]]] * 2, r"regions: expected one tensor for each of the 1 maps, got 2"),
    ],
)
def test_bad_boxes_are_named(boxes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        region_pyramid_pool(MAPS[:1], boxes, spatial_scale=SCALE)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "1/16", (0.1,), True, 10**400, 1e-300])
def test_bad_scales_are_refused(scale: Any) -> None:
    with pytest.raises(UserError, match="spatial_scale: expected cells per image pixel, such as 1/16, got "):
        region_pyramid_pool(MAPS, BOXES, spatial_scale=scale)
    with pytest.raises(UserError, match="spatial_scale: "):
        RegionPyramidPool2d(spatial_scale=scale)


@pytest.mark.parametrize("far", [1e30, -1e30, 1.7e308, -1.7e308])
def test_boxes_far_away_take_the_nearest_cell(far: float) -> None:
    box = np.array([[far, far, far, far]])
    cell = [[0, 0, 1, 1]] if far < 0 else [[8, 5, 9, 6]]
    assert scaled_cells(torch.from_numpy(box), SCALE, 6, 9).tolist() == cell
    assert torch.equal(
        region_pyramid_pool(MAPS[:1], [box], spatial_scale=SCALE), region_pyramid_pool(MAPS[:1], [cell])
    )


def test_a_compiled_head_pools_boxes() -> None:
    torch.compiler.reset()
    pool = RegionPyramidPool2d((2, 1), spatial_scale=SCALE)
    compiled = torch.compile(pool, backend="eager", fullgraph=True)
    boxes: list[Tensor] = [BOXES[0], BOXES[2], BOXES[2]]
    assert torch.equal(compiled(MAPS, boxes), pool(MAPS, boxes))


def test_rows_with_a_map_index_under_transforms() -> None:
    rows = torch.tensor([[1, 0.0, 0.0, 90.0, 40.0], [0, 5.0, 5.0, 80.0, 60.0]])

    def pool(maps: Tensor, rows: Tensor = rows) -> Tensor:
        return region_pyramid_pool(maps, rows, (2, 1), spatial_scale=SCALE)

    many = torch.stack([MAPS, MAPS.flip(0)])
    assert torch.equal(torch.func.vmap(pool)(many), torch.stack([pool(one) for one in many]))
    torch.testing.assert_close(torch.func.jvp(pool, (MAPS,), (MAPS,))[1], pool(MAPS))
    with pytest.raises(UserError, match="regions: expected concrete map indices"):
        torch.func.vmap(lambda r: pool(MAPS, r))(torch.stack([rows, rows]))
    with pytest.raises(UserError, match="regions: expected concrete map indices"):
        pool(MAPS, rows.to("meta"))


def test_a_compiled_head_pools_rows_with_a_map_index() -> None:
    torch.compiler.reset()
    rows = torch.tensor([[1, 0.0, 0.0, 90.0, 40.0], [0, 5.0, 5.0, 80.0, 60.0]])
    pool = RegionPyramidPool2d((2, 1), spatial_scale=SCALE)
    assert torch.equal(torch.compile(pool, backend="eager")(MAPS, rows), pool(MAPS, rows))

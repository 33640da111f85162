"""Boxes to cells and the choice of the scale, against plain loops over cell centres."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.errors import UserError
from sppnet.features import cells, choose_scale
from sppnet.structures import Boxes, FeatureMap, Grid, ImageSize


def _map(grid: Grid, cells_hw: tuple[int, int], resized: ImageSize, image: ImageSize) -> FeatureMap:
    return FeatureMap(torch.zeros(1, *cells_hw), "layer", grid, resized, image)


def _axis_loop(low: float, high: float, fmap: FeatureMap, axis: int) -> tuple[int, int]:
    """The rule, cell by cell, in fractions: centres in [low, high), else the one nearest to the middle."""
    resized, image = ((s.height, s.width)[axis] for s in (fmap.resized, fmap.image))
    scale = Fraction(resized, image)
    stride, first = Fraction(fmap.grid.stride), Fraction(fmap.grid.first)
    centres = [first + i * stride for i in range(fmap.values.shape[1 + axis])]
    inside = [i for i, c in enumerate(centres) if Fraction(low) * scale <= c < Fraction(high) * scale]
    if inside:
        return inside[0], inside[-1] + 1
    middle = (Fraction(low) + Fraction(high)) / 2 * scale
    # Of two cells equally near, the later one.
    nearest = min(range(len(centres)), key=lambda i: (abs(centres[i] - middle), -i))
    return nearest, nearest + 1


_GRIDS = st.builds(
    Grid,
    st.sampled_from([1.0, 4.0, 8.0, 12.0, 16.0]),
    st.sampled_from([-3.5, 0.5, 3.7246, 8.0, 9.5, 17.5]),
)
_SIZES = st.builds(ImageSize, st.integers(1, 700), st.integers(1, 700))
_COORDINATES = st.one_of(
    st.integers(-50, 800).map(float),
    st.integers(-100, 1600).map(lambda n: n / 2),
    # No finer than what sums with a map's corner keep.
    st.floats(-1e4, 1e4).map(lambda x: round(x * 1024) / 1024),
)


@settings(deadline=None, max_examples=150)
@given(
    _GRIDS,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    _SIZES,
    _SIZES,
    st.lists(st.tuples(_COORDINATES, _COORDINATES, _COORDINATES, _COORDINATES), min_size=1, max_size=8),
)
def test_equals_a_loop_over_centres(
    grid: Grid,
    shape: tuple[int, int],
    resized: ImageSize,
    image: ImageSize,
    corners: list[tuple[float, float, float, float]],
) -> None:
    fmap = _map(grid, shape, resized, image)
    rows = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    boxes = Boxes(torch.tensor(rows, dtype=torch.float32), image)
    for found, (x0, y0, x1, y1) in zip(cells(boxes, fmap).tolist(), boxes.xyxy.tolist(), strict=True):
        left, right = _axis_loop(x0, x1, fmap, 1)
        top, bottom = _axis_loop(y0, y1, fmap, 0)
        assert found == [left, top, right, bottom]


@settings(deadline=None, max_examples=60)
@given(_GRIDS, st.integers(1, 60), _SIZES)
def test_edges_on_centres_are_exact_at_any_scale(grid: Grid, count: int, image: ImageSize) -> None:
    """A resized image of k times the size: centres at whole pixels lie exactly on box edges."""
    size = ImageSize(image.height * 3, image.width * 3)
    fmap = _map(Grid(grid.stride, 6.0), (count, count), ImageSize(image.height, image.width), size)
    centre = (6.0 + grid.stride * (count - 1)) * 3  # the last cell's centre, in image pixels
    boxes = Boxes(torch.tensor([[centre, centre, centre + 1, centre + 1], [0, 0, centre, centre]]), size)
    found = cells(boxes, fmap).tolist()
    assert found[0] == [count - 1, count - 1, count, count]
    assert found[1][2] == max(count - 1, 1)


@settings(deadline=None, max_examples=60)
@given(_GRIDS, _SIZES, _SIZES, st.lists(st.integers(0, 700), min_size=2, max_size=8, unique=True))
def test_boxes_that_share_edges_share_no_cell_and_lose_none(
    grid: Grid, resized: ImageSize, image: ImageSize, edges: list[int]
) -> None:
    fmap = _map(grid, (25, 25), resized, image)
    steps = sorted(edges)
    strips = Boxes(torch.tensor([[a, 0, b, 9999] for a, b in itertools.pairwise(steps)]).float(), image)
    whole = Boxes(torch.tensor([[steps[0], 0, steps[-1], 9999]]).float(), image)
    scale = Fraction(resized.width, image.width)
    centres = [Fraction(grid.first) + i * Fraction(grid.stride) for i in range(25)]
    inside = {i for i, c in enumerate(centres) if steps[0] * scale <= c < steps[-1] * scale}
    if not inside:
        return
    left, _, right, _ = cells(whole, fmap)[0].tolist()
    assert set(range(left, right)) == inside
    full = [
        range(a, c)
        for (a, _, c, _), box in zip(cells(strips, fmap).tolist(), strips.xyxy.tolist(), strict=True)
        if any(box[0] * scale <= x < box[2] * scale for x in centres)
    ]
    together = [i for r in full for i in r]
    assert sorted(together) == sorted(inside)


def test_a_whole_image_covers_a_map_whose_centres_lie_in_it() -> None:
    size = ImageSize(480, 640)
    fmap = _map(Grid(8.0, 9.5), (59, 79), size, size)
    assert cells(Boxes(torch.tensor([[0.0, 0, 640, 480]]), size), fmap).tolist() == [[0, 0, 79, 59]]


def test_boxes_outside_the_image_get_the_cell_at_the_border() -> None:
    size = ImageSize(100, 200)
    fmap = _map(Grid(10.0, 5.0), (10, 20), size, size)
    far = torch.tensor([[-90.0, -90, -80, -80], [1e30, 1e30, 1e30, 1e30], [300, -9, 400, -1]])
    assert cells(Boxes(far, size), fmap).tolist() == [[0, 0, 1, 1], [19, 9, 20, 10], [19, 0, 20, 1]]


def test_no_boxes_give_no_cells() -> None:
    size = ImageSize(100, 200)
    found = cells(Boxes.empty(size), _map(Grid(10.0, 5.0), (10, 20), size, size))
    assert found.shape == (0, 4)
    assert found.dtype == torch.int64


def test_boxes_of_another_image_are_refused() -> None:
    size = ImageSize(100, 200)
    fmap = _map(Grid(10.0, 5.0), (10, 20), size, size)
    with pytest.raises(UserError, match=r"boxes\.size"):
        cells(Boxes.empty(ImageSize(200, 100)), fmap)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=5, unique=True),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=6),
    st.sampled_from([1.0, 100.0, 224.0 * 224.0]),
)
def test_the_scale_whose_area_is_nearest(
    scales: list[int], sides: list[tuple[int, int]], target: float
) -> None:
    image = ImageSize(300, 400)
    maps = [_map(Grid(8.0, 4.0), (5, 5), ImageSize(s, -(-s * 4 // 3)), image) for s in sorted(scales)]
    boxes = Boxes(torch.tensor([[0, 0, w, h] for w, h in sides]).float(), image)
    for chosen, (w, h) in zip(choose_scale(boxes, maps, target).tolist(), sides, strict=True):
        far = [
            abs(w * h * Fraction(m.resized.height, 300) * Fraction(m.resized.width, 400) - int(target))
            for m in maps
        ]
        assert float(far[chosen]) == pytest.approx(float(min(far)), rel=1e-9)


def test_the_first_of_equal_scales_is_taken() -> None:
    image = ImageSize(100, 100)
    maps = [_map(Grid(8.0, 4.0), (5, 5), ImageSize(s, s), image) for s in (100, 200, 200)]
    boxes = Boxes(torch.tensor([[0.0, 0, 0, 9], [0, 0, 100, 100]]), image)  # an empty box is equal at all
    assert choose_scale(boxes, maps, 40000.0).tolist() == [0, 1]
    half = 0.5 * (100 * 100 + 200 * 200)  # halfway between the first two
    assert choose_scale(boxes[1:], maps, half).tolist() == [0]


def test_no_map_and_no_target_are_refused() -> None:
    image = ImageSize(100, 100)
    with pytest.raises(UserError, match="at least one map"):
        choose_scale(Boxes.empty(image), [])
    with pytest.raises(UserError, match="target_area"):
        choose_scale(Boxes.empty(image), [_map(Grid(8.0, 4.0), (5, 5), image, image)], 0.0)

"""Cells of windows against closed forms in integers and fractions, and the release's target sides."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.backbones import load_backbone
from sppnet.detect import PoolOptions
from sppnet.detect.cells import paper_cells, release_cells, release_scale, target_sides, window_cells
from sppnet.structures import Boxes, FeatureMap, FeatureMaps, Grid, ImageSize


def make_map(stride: float, first: float, cells: tuple[int, int], resized: ImageSize, image: ImageSize):
    return FeatureMap(torch.zeros(1, *cells), "conv5", Grid(stride, first), resized, image)


def one_box(x0: float, y0: float, x1: float, y1: float, size: ImageSize) -> Boxes:
    return Boxes(torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32), size)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 20), st.integers(0, 280), st.integers(1, 120), st.integers(0, 280), st.integers(1, 120))
def test_windows_of_whole_pixels_have_the_cells_of_appendix_a(stride, left, width, top, height):
    """floor(x / S) + 1 to ceil(x / S) - 1 for boundary pixels x, with cell i centred at pixel S * i."""
    size = ImageSize(400, 400)
    count = 399 // stride + 1
    fmap = make_map(stride, 0.5, (count, count), size, size)
    got = paper_cells(one_box(left, top, left + width, top + height, size), fmap)[0].tolist()
    for axis, (low, length) in enumerate(((left, width), (top, height))):
        start, last = low // stride + 1, -(-(low + length - 1) // stride) - 1
        start, stop = min(start, count), min(last + 1, count)
        if stop > start:
            assert (got[axis], got[axis + 2]) == (start, stop)
        else:  # the one cell nearest to the middle
            assert got[axis + 2] == got[axis] + 1
            middle = Fraction(2 * low + length, 2)
            distance = [abs(middle - stride * i - Fraction(1, 2)) for i in range(count)]
            assert distance[got[axis]] == min(distance)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0, 300, width=32),
    st.floats(0, 300, width=32),
    st.sampled_from([(300, 300), (300, 688), (301, 1200), (333, 97)]),
    st.sampled_from([(16.0, 20.5), (12.0, 8.0), (8.0, 0.5), (3.0, -2.5)]),
)
def test_a_cell_belongs_to_a_window_when_its_centre_is_half_a_pixel_inside(a, b, sides, grid):
    own, resized = sides
    low, high = sorted((min(a, own), min(b, own)))
    (stride, first), count = grid, 200
    image, large = ImageSize(own, own), ImageSize(resized, resized)
    fmap = make_map(stride, first, (count, count), large, image)
    x0, y0, x1, y1 = paper_cells(one_box(low, low, high, high, image), fmap)[0].tolist()
    assert (x0, x1) == (y0, y1)
    factor = Fraction(resized, own)
    inside = [
        i
        for i in range(count)
        if Fraction(low) * factor + Fraction(1, 2)
        < Fraction(first) + i * Fraction(stride)
        < Fraction(high) * factor - Fraction(1, 2)
    ]
    assert list(range(x0, x1)) == inside or (not inside and x1 == x0 + 1)


def test_a_window_of_224_pixels_has_13_or_14_cells_of_stride_16():
    size = ImageSize(688, 688)
    fmap = make_map(16, 0.5, (43, 43), size, size)
    counts = set()
    for left in range(64, 96):
        x0, _, x1, _ = paper_cells(one_box(left, 64, left + 224, 288, size), fmap)[0].tolist()
        counts.add(x1 - x0)
    assert counts == {13, 14}


def plain_release(low, high, short, own_short, count, first, stride, offset):
    """The release's rule with coordinates counted from 1 and one factor, that of the short side."""
    factor = Fraction(short - 1, own_short - 1)
    x0, x1 = Fraction(low) * factor + 1, (Fraction(high) - 1) * factor + 1
    start = math.floor((x0 - first + offset) / stride + Fraction(1, 2)) + 1
    last = math.ceil((x1 - first - offset) / stride - Fraction(1, 2)) + 1
    if start > last:
        start = last = math.floor(Fraction(start + last, 2))
    start, last = min(max(start, 1), count), min(max(last, 1), count)
    return start - 1, max(last, start)


@pytest.mark.parametrize(
    ("image", "resized", "cells"),
    [
        (ImageSize(300, 400), ImageSize(688, 917), (42, 56)),
        (ImageSize(333, 500), ImageSize(480, 721), (29, 44)),
    ],
)
def test_release_cells_use_the_factor_of_the_short_side_for_both_axes(image, resized, cells):
    # ZF-5: stride 16, the first cell centred at pixel 21 counted from 1.
    fmap = make_map(16, 20.5, cells, resized, image)
    draw = torch.Generator().manual_seed(3)
    corners = torch.rand(300, 2, 2, generator=draw) * torch.tensor([float(image.width), float(image.height)])
    boxes = Boxes(corners.sort(1).values.reshape(300, 4), image)
    offset = Fraction(13, 2)
    short, own = resized.short_side, image.short_side
    for box, got in zip(boxes.xyxy.tolist(), release_cells(boxes, fmap, 6.5).tolist(), strict=True):
        x = plain_release(box[0], box[2], short, own, cells[1], 21, 16, offset)
        y = plain_release(box[1], box[3], short, own, cells[0], 21, 16, offset)
        assert got == [x[0], y[0], x[1], y[1]]


def test_a_release_window_of_208_pixels_has_13_or_14_cells():
    size = ImageSize(700, 900)
    fmap = make_map(16, 20.5, (42, 56), size, size)
    x0, y0, x1, y1 = release_cells(one_box(200, 200, 408, 408, size), fmap, 6.5)[0].tolist()
    assert 13 <= x1 - x0 <= 14
    assert 13 <= y1 - y0 <= 14


@pytest.mark.parametrize(
    ("name", "target"), [("zf5/32", 13 * 16), ("overfeat5/32", 18 * 12), ("random:builtin", 14 * 16)]
)
def test_the_target_side_follows_from_the_network(name, target):
    assert list(target_sides(load_backbone(name)).values())[-1] == target


def test_the_release_takes_the_scale_nearest_to_its_target():
    image = ImageSize(300, 400)
    maps = [
        make_map(12, 8.0, (s // 12, s // 9), ImageSize(s, s * 4 // 3), image) for s in (480, 576, 688, 864)
    ]
    boxes = Boxes(torch.tensor([[0.0, 0, side, side] for side in (60, 80, 100, 120, 140)]), image)
    got = release_scale(boxes, maps, 216.0).tolist()
    wanted = [math.floor(216 * 300 / side + 0.5) for side in (60, 80, 100, 120, 140)]
    sides = [480, 576, 688, 864]
    assert got == [min(range(4), key=lambda i, w=w: (abs(sides[i] - w), i)) for w in wanted]
    lines = window_cells(
        FeatureMaps(tuple(maps)), boxes, PoolOptions(cells="release"), None, {"conv5": 216.0}
    )
    assert lines[:, 0].tolist() == got

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet.draw import PALETTE, as_image, class_colour, draw_boxes, draw_labels
from sppnet.draw.palette import ink_on
from sppnet.errors import UserError
from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize

SIZE = ImageSize(300, 400)
NAMES = ("cat", "dog", "a name that is much too long for the width of any of the images in these tests, " * 2)


def truth(boxes: list[list[float]], labels: list[int] | None = None, size: ImageSize = SIZE) -> GroundTruth:
    numbers = torch.tensor(labels or [0] * len(boxes), dtype=torch.int64)
    return GroundTruth.make(Boxes(torch.tensor(boxes).reshape(-1, 4), size), numbers, NAMES)


def grey(size: ImageSize = SIZE) -> np.ndarray:
    return np.full((size.height, size.width, 3), 128, np.uint8)


def changed(drawn: Image.Image, value: int = 128) -> np.ndarray:
    return (np.asarray(drawn) != value).any(2)


def test_lines_are_on_the_edge_of_the_box_in_the_colour_of_its_class() -> None:
    pixels = np.asarray(draw_boxes(grey(), truth([[100, 120, 200, 220]], [1])))
    colour = class_colour(1)
    for row, column in ((120, 180), (219, 150), (180, 100), (160, 199)):
        assert tuple(pixels[row, column]) == colour, (row, column)
    # The rest of the box and of the image is unchanged, except for the label above the box.
    assert (pixels[125:215, 105:195] == 128).all()
    assert (pixels[222:] == 128).all()
    assert (pixels[:, :98] == 128).all()


def test_an_image_without_objects_and_the_argument_are_unchanged() -> None:
    given_pixels = grey()
    assert not changed(draw_boxes(given_pixels, truth([]))).any()
    image = Image.fromarray(given_pixels)
    assert changed(draw_boxes(image, truth([[10, 10, 50, 50]]))).any()
    assert not changed(image).any()


def test_detections_below_the_threshold_are_not_drawn() -> None:
    boxes = Boxes(torch.tensor([[10.0, 150, 60, 200], [300.0, 150, 360, 200]]), SIZE)
    found = Detections(boxes, torch.tensor([0.9, 0.3]), torch.tensor([0, 1]), NAMES)
    one, both, same = (changed(draw_boxes(grey(), found, t)) for t in (0.5, None, 0.3))
    assert one[:, :200].any()
    assert not one[:, 250:].any()
    assert both[:, 250:].any()
    assert np.array_equal(both, same)


def test_labels_show_scores_and_flags() -> None:
    box = Boxes(torch.tensor([[10.0, 150, 60, 200]]), SIZE)
    label = torch.tensor([0])
    scores = [Detections(box, torch.tensor([score]), label, NAMES) for score in (0.25, 0.75)]
    false, true = torch.tensor([False]), torch.tensor([True])
    flagged = [
        GroundTruth(box, label, NAMES, hard, crowd)
        for hard, crowd in ((false, false), (true, false), (false, true))
    ]
    drawn = [np.asarray(draw_boxes(grey(), found)) for found in (*scores, *flagged)]
    assert all(not np.array_equal(a, b) for a, b in pairwise(drawn))


SIDE = st.floats(-20, 420, width=32)


@given(
    st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=8), st.sampled_from([(1, 1), (3, 500), (300, 400)])
)
@settings(deadline=None, max_examples=40)
def test_any_boxes_can_be_drawn(corners: list, sides: tuple[int, int]) -> None:
    size = ImageSize(*sides)
    boxes = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners]
    drawn = draw_boxes(grey(size), truth(boxes, [i % 3 for i in range(len(boxes))], size))
    factor = -(-360 // max(sides))
    assert drawn.size == (size.width * factor, size.height * factor)


def test_labels_do_not_hide_each_other() -> None:
    # Boxes in the corners, and two with a common corner: each label must still show its background.
    boxes = [[0, 0, 60, 60], [340, 0, 400, 60], [0, 240, 60, 300], [150, 150, 250, 220], [150, 150, 350, 290]]
    names = ("one", "two", "three", "four", "five")
    found = GroundTruth.make(Boxes(torch.tensor(boxes).float(), SIZE), torch.arange(5), names)
    pixels = np.asarray(draw_boxes(grey(), found))
    for number in range(5):
        single = np.asarray(draw_boxes(grey(), found[number : number + 1]))
        expected = (single == class_colour(number)).all(2).sum()
        count = (pixels == class_colour(number)).all(2).sum()
        # Crossing lines hide a few pixels; a hidden label would hide most of the colour.
        assert count >= 0.75 * expected, names[number]


def test_small_images_are_enlarged_by_an_integer_factor() -> None:
    size = ImageSize(30, 50)
    drawn = draw_boxes(grey(size), truth([[10, 10, 30, 20]], [2], size))
    assert drawn.size == (400, 240)
    assert np.asarray(drawn)[80, 160:230].tolist().count(list(class_colour(2))) > 20


def test_all_image_types_are_drawn_equally() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    objects = truth([[100, 120, 200, 220]])
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    drawn = [np.asarray(draw_boxes(p, objects)) for p in (pixels, Image.fromarray(pixels), image)]
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2])
    assert as_image(Image.new("L", (4, 5), 7)).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize(
    "image", [np.zeros((3, 300, 400), np.uint8), np.zeros((300, 400, 3)), torch.zeros(300, 400, 3)]
)
def test_other_arrays_are_rejected(image: object) -> None:
    with pytest.raises(UserError, match=r"uint8 \[H, W, 3\] or float \[3, H, W\]"):
        draw_boxes(image, truth([]))


def test_boxes_of_another_image_size_are_rejected() -> None:
    with pytest.raises(UserError, match=r"300 x 400 .* got 400 x 300"):
        draw_boxes(grey(ImageSize(400, 300)), truth([]))


def test_labels_are_on_a_strip_below_the_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    drawn = [draw_labels(pixels, NAMES[:count]) for count in range(4)]
    heights = [image.height for image in drawn]
    assert heights[0] == 300
    assert heights[2] - heights[1] == heights[1] - heights[0] > 10
    for image in drawn:
        assert image.width == 400
        assert np.array_equal(np.asarray(image)[:300], pixels)
    assert (np.asarray(drawn[1])[300:] > 200).any()
    assert draw_labels(np.zeros((10, 20, 3), np.uint8), []).size == (360, 180)


def test_colours_differ_and_text_on_them_has_contrast() -> None:
    assert len(set(PALETTE)) == len(PALETTE) >= 12
    assert class_colour(len(PALETTE)) == class_colour(0)

    def luminance(colour: tuple[int, int, int]) -> float:
        values = [v / 255 for v in colour]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for colour in PALETTE:
        low, high = sorted([luminance(colour), luminance(ink_on(colour))])
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour

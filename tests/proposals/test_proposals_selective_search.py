from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from sppnet.errors import MissingExtraError, UserError
from sppnet.proposals import selective_search
from sppnet.structures import ImageSize

pytest.importorskip("cv2", reason="OpenCV is not installed")

OBJECTS = ((20, 30, 70, 90), (100, 40, 150, 80))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Two plain rectangles on a ground with a little texture."""
    image = np.random.default_rng(3).integers(90, 110, (120, 180, 3)).astype(np.uint8)
    for (x0, y0, x1, y1), colour in zip(OBJECTS, ((220, 30, 30), (20, 40, 230)), strict=True):
        image[y0:y1, x0:x1] = colour
    return image


def test_the_same_windows_in_the_same_order_on_every_call(pixels: np.ndarray) -> None:
    first, second, third = (selective_search(pixels).boxes.xyxy for _ in range(3))
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    rows = first.tolist()
    assert rows == sorted(rows)
    assert len({tuple(row) for row in rows}) == len(rows) > 3


def test_objects_are_among_the_windows_and_all_are_large_enough(pixels: np.ndarray) -> None:
    found = selective_search(pixels)
    assert found.boxes.size == ImageSize(120, 180)
    for wanted in OBJECTS:
        gap = (found.boxes.xyxy - torch.tensor(wanted)).abs().amax(1)
        assert gap.min() <= 2, wanted
    sides = found.boxes.xyxy[:, 2:] - found.boxes.xyxy[:, :2]
    assert sides.min() >= 20
    assert torch.equal(found.boxes.clip().xyxy, found.boxes.xyxy)
    assert found.scores.tolist() == [0] * len(found)
    assert len(selective_search(pixels, min_side=1)) > len(found)


def test_float_image_and_uint8_array_give_the_same(pixels: np.ndarray) -> None:
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    wanted = selective_search(pixels).boxes.xyxy
    assert torch.equal(selective_search(image).boxes.xyxy, wanted)
    assert torch.equal(selective_search(image.double()).boxes.xyxy, wanted)


def test_grey_is_taken_as_grey_colours(pixels: np.ndarray) -> None:
    grey = pixels[:, :, 0]
    wanted = selective_search(np.stack([grey] * 3, axis=2)).boxes.xyxy
    assert torch.equal(selective_search(grey).boxes.xyxy, wanted)


def test_a_image_too_small_for_any_window() -> None:
    assert len(selective_search(np.zeros((12, 12, 3), np.uint8))) == 0
    assert len(selective_search(np.zeros((1, 1, 3), np.uint8))) == 0


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(4, 4, 3),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
    ],
)
def test_other_images_are_refused(image: object) -> None:
    with pytest.raises(UserError, match="image: expected"):
        selective_search(image)


def test_a_segmentation_finer_than_anything() -> None:
    with pytest.raises(UserError, match="k: expected at least 1"):
        selective_search(np.zeros((4, 4, 3), np.uint8), k=0)


@pytest.mark.parametrize("stand_in", [None, object()])
def test_without_opencv(monkeypatch: pytest.MonkeyPatch, stand_in: object) -> None:
    monkeypatch.setitem(sys.modules, "cv2", stand_in)
    with pytest.raises(MissingExtraError, match="selective-search"):
        selective_search(np.zeros((4, 4, 3), np.uint8))

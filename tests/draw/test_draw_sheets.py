from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet.draw import contact_sheet, draw_boxes, draw_comparison, save_image
from sppnet.errors import UserError
from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(2).sum())


def test_large_images_are_reduced_and_small_images_are_not() -> None:
    images = [
        Image.new("RGB", (50, 20), RED),
        Image.new("RGB", (400, 100), GREEN),
        Image.new("RGB", (10, 90), BLUE),
    ]
    sheet = contact_sheet(images, columns=2, width=100)
    assert [count(sheet, c) for c in (RED, GREEN, BLUE)] == [50 * 20, 100 * 25, 10 * 90]
    gap = 6
    assert sheet.size == (2 * 100 + 3 * gap, 25 + 90 + 3 * gap)
    assert sheet.getpixel((gap + 50, gap + 10)) == RED
    assert sheet.getpixel((2 * gap + 150, gap + 10)) == GREEN
    assert sheet.getpixel((gap + 50, 2 * gap + 25 + 45)) == BLUE


def test_a_sheet_has_no_empty_columns() -> None:
    assert contact_sheet([np.zeros((9, 9, 3), np.uint8)], columns=5, width=100).width == 112


def test_captions_add_a_line_and_are_truncated() -> None:
    images = [Image.new("RGB", (100, 50), RED)] * 2
    plain = contact_sheet(images, 2, width=100)
    captioned = contact_sheet(images, 2, ["a", "a caption that is much longer than its column is wide"], 100)
    assert captioned.height > plain.height
    assert count(captioned, RED) == count(plain, RED)
    below = np.asarray(captioned)[60:]
    assert (below < 100).any()
    gutter = below[:, 106:112]
    assert (gutter > 240).all()


def test_invalid_arguments_raise_user_errors() -> None:
    image = Image.new("RGB", (9, 9))
    for arguments in (([],), ([image], 0), ([image], 1, None, 3)):
        with pytest.raises(UserError, match="at least one image and one column"):
            contact_sheet(*arguments)
    with pytest.raises(UserError, match="captions: expected 1, one per image, got 2"):
        contact_sheet([image], captions=["a", "b"])


def test_comparison_shows_annotations_left_and_detections_right() -> None:
    size = ImageSize(300, 400)
    boxes = Boxes(torch.tensor([[50.0, 150, 150, 250], [200.0, 20, 300, 90]]), size)
    truth = GroundTruth.make(boxes, torch.tensor([0, 1]), ("a", "b"))
    found = Detections(boxes, torch.tensor([0.9, 0.2]), torch.tensor([0, 1]), ("a", "b"))
    image = np.full((300, 400, 3), 128, np.uint8)
    both = np.asarray(draw_comparison(image, truth, found, 0.5))
    gap = 10
    left, right = both[gap : gap + 300, gap : gap + 400], both[gap : gap + 300, 2 * gap + 400 : 2 * gap + 800]
    assert np.array_equal(left, np.asarray(draw_boxes(image, truth)))
    assert np.array_equal(right, np.asarray(draw_boxes(image, found, 0.5)))


def test_the_extension_selects_the_format(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), RED)
    for name, kind in (("a.png", "PNG"), ("new/b.jpg", "JPEG"), ("c.webp", "WEBP")):
        save_image(tmp_path / name, image)
        with Image.open(tmp_path / name) as opened:
            assert (opened.format, opened.size) == (kind, (20, 10))
    save_image(tmp_path / "d.png", b"encoded")
    assert (tmp_path / "d.png").read_bytes() == b"encoded"
    for name in ("e", "e.txt", "e.xbmx"):
        with pytest.raises(UserError, match="an ending such as"):
            save_image(tmp_path / name, image)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "c.webp", "d.png", "new"]

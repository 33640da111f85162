"""Small images with discs, and a detector small enough for tests."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sppnet.data import write_voc
from sppnet.detect import DetectorOptions
from sppnet.structures import Boxes, GroundTruth, ImageSize

OPTIONS = DetectorOptions(short_side=96, levels=(2, 1), windows=200, mining_rounds=1, rows=1000)


def pixels(
    seed: int, ground: int = 110, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, list[float]]:
    """A noisy image with one disc, and the disc's box; later seeds have fainter discs."""
    draw = np.random.default_rng(seed)
    height, width = size or (int(draw.integers(64, 90)), int(draw.integers(80, 110)))
    image = np.clip(draw.integers(-20, 21, (height, width, 3)) + ground, 0, 255)
    side = int(draw.integers(26, 40))
    left, top = int(draw.integers(0, width - side)), int(draw.integers(0, height - side))
    rows, columns = np.mgrid[:height, :width]
    centre = (side - 1) / 2
    inside = (rows - top - centre) ** 2 + (columns - left - centre) ** 2 <= (side / 2) ** 2
    image[inside] = (230, 60, 40)
    return image.astype(np.uint8), [left, top, left + side, top + side]


def png(seed: int, ground: int = 110, size: tuple[int, int] | None = None) -> bytes:
    return encoded(Image.fromarray(pixels(seed, ground, size)[0]))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def detection_set(root: Path, count: int) -> Path:
    """A VOC data set of discs."""
    items = []
    for seed in range(count):
        image, box = pixels(seed)
        size = ImageSize(*image.shape[:2])
        truth = GroundTruth.make(Boxes(torch.tensor([box]), size), torch.tensor([0]), ("disc",))
        items.append((f"a{seed:02}", image, truth))
    write_voc(root, items, "train")
    return root

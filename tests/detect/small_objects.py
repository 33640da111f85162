"""Images of 4000 x 3000 pixels with 40 objects of 20 pixels, made from photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sppnet.data import read_detection, read_pixels
from sppnet.structures import Boxes, DetectionItem, DetectionSet, GroundTruth, ImageSize

SIZE = ImageSize(3000, 4000)
OBJECTS = 40
SIDE = 20


def large_images(shared: Path, folder: Path, count: int) -> DetectionSet:
    """Photographs of one data set side by side, and on them objects cut from the photographs of another."""
    draw = np.random.default_rng(0)
    backdrops = sorted((shared / "raccoon" / "images").glob("*.jpg"))
    crops = fruit(shared)
    folder.mkdir()
    items = [one_image(draw, backdrops, crops, folder / f"{n}.png") for n in range(count)]
    return DetectionSet(folder, "voc", "all", ("fruit",), (1,), tuple(items))


def fruit(shared: Path) -> list[Image.Image]:
    """Objects whose boxes are not much longer than wide."""
    crops = []
    for item in read_detection(shared / "fruit", "train").items:
        image = Image.fromarray(read_pixels(item.path))
        for box in item.truth.boxes.xyxy.tolist():
            width, height = box[2] - box[0], box[3] - box[1]
            if max(width, height) < 1.3 * min(width, height) and min(width, height) >= 2 * SIDE:
                crops.append(image.crop(tuple(map(round, box))))
    return crops


def one_image(draw, backdrops: list[Path], crops: list[Image.Image], path: Path) -> DetectionItem:
    canvas = Image.new("RGB", (SIZE.width, SIZE.height))
    for x in range(0, SIZE.width, 500):
        for y in range(0, SIZE.height, 500):
            photo = Image.fromarray(read_pixels(backdrops[draw.integers(len(backdrops))]))
            canvas.paste(photo.resize((500, 500)), (x, y))
    boxes: list[list[int]] = []
    while len(boxes) < OBJECTS:
        x, y = draw.integers(0, SIZE.width - SIDE), draw.integers(0, SIZE.height - SIDE)
        if any(abs(x - b[0]) < 2 * SIDE and abs(y - b[1]) < 2 * SIDE for b in boxes):
            continue
        crop = crops[draw.integers(len(crops))].copy()
        crop.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        canvas.paste(crop, (int(x), int(y)))
        boxes.append([int(x), int(y), int(x) + crop.width, int(y) + crop.height])
    canvas.save(path, compress_level=1)
    truth = GroundTruth.make(
        Boxes(torch.tensor(boxes).float(), SIZE), torch.zeros(OBJECTS, dtype=torch.int64), ("fruit",)
    )
    return DetectionItem(path, path.stem, truth)

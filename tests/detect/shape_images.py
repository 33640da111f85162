"""Images of discs and squares, and a detector small enough for tests."""

import numpy as np
import torch

from sppnet.detect import DetectorOptions
from sppnet.structures import Boxes, GroundTruth, ImageSize

NAMES = ("disc", "square")
OPTIONS = DetectorOptions(short_side=128, levels=(3, 1), windows=600, mining_rounds=1, rows=4000)


def image(seed, shown=(0, 1)):
    """A noisy image of 96 x 128 or so with one disc and one square that do not touch, or one of them."""
    draw = np.random.default_rng(seed)
    height, width = int(draw.integers(90, 110)), int(draw.integers(120, 150))
    pixels = draw.integers(90, 140, (height, width, 3))
    rows, columns = np.mgrid[:height, :width]
    side = int(draw.integers(28, 40))
    boxes = []
    for number, left in enumerate((4, width // 2 + 4)):
        top = int(draw.integers(2, height - side - 2))
        left += int(draw.integers(0, width // 2 - side - 6))
        if number not in shown:
            continue
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        if number == 0:
            centre = (side - 1) / 2
            inside &= (rows - top - centre) ** 2 + (columns - left - centre) ** 2 <= (side / 2) ** 2
        pixels[inside] = (230, 60, 40) if number == 0 else (40, 60, 230)
        boxes.append([left, top, left + side, top + side])
    size = ImageSize(height, width)
    truth = GroundTruth.make(
        Boxes(torch.tensor(boxes, dtype=torch.float32), size), torch.tensor(shown), NAMES
    )
    return pixels.astype(np.uint8), truth

"""Images with a square of each class."""

import numpy as np
import torch

from sppnet.structures import Boxes, GroundTruth, ImageSize

NAMES = ("blue", "red")
COLOURS = ((40, 60, 230), (230, 60, 40))


def scene(seed: int) -> tuple[np.ndarray, GroundTruth]:
    """Noise with a blue and a red square."""
    draw = np.random.default_rng(seed)
    height, width = int(draw.integers(90, 110)), int(draw.integers(120, 150))
    pixels = draw.integers(90, 140, (height, width, 3))
    boxes = []
    for number, colour in enumerate(COLOURS):
        side = int(draw.integers(24, 40))
        left = number * (width // 2) + int(draw.integers(0, width // 2 - side))
        top = int(draw.integers(0, height - side))
        pixels[top : top + side, left : left + side] = colour
        boxes.append([left, top, left + side, top + side])
    size = ImageSize(height, width)
    truth = GroundTruth.make(
        Boxes(torch.tensor(boxes, dtype=torch.float32), size), torch.tensor([0, 1]), NAMES
    )
    return pixels.astype(np.uint8), truth

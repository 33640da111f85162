from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(root: Path, split: str, each: int = 6, classes: int = 3) -> Path:
    """Class folders of images of several shapes; each class has its own colour."""
    chance = np.random.default_rng(len(split))
    for label in range(classes):
        folder = root / split / f"class{label}"
        folder.mkdir(parents=True)
        for i in range(each):
            height, width = (40, 52) if i % 2 else (48, 40)
            pixels = chance.integers(0, 60, (height, width, 3), dtype=np.uint8)
            pixels[..., label % 3] += 160
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return root

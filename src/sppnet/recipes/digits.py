"""Images of the demonstration: handwritten digits on crops of two photographs.

Digits and photographs are data of scikit-learn: 1,797 digits of 8 x 8 pixels and two photographs of 640 x 427
pixels. The training split shares neither digits nor photograph pixels with the other splits: digits are
divided by their index, photographs at a column. The images are determined by a seed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from sppnet.structures import Boxes, GroundTruth, ImageSize

__all__ = [
    "DIGIT_NAMES",
    "SPLITS",
    "DemoImage",
    "Split",
    "SplitName",
    "class_images",
    "detection_images",
]

DIGIT_NAMES = tuple("0123456789")

Pixels = NDArray[np.float32]
SplitName = Literal["train", "test", "new"]


@dataclass(frozen=True)
class Split:
    """The source data of one split.

    Attributes:
        digits: index of the first digit and of the digit after the last.
        region: ``(x0, y0, x1, y1)``, the pixels of both photographs that crops are taken from.
    """

    digits: tuple[int, int]
    region: tuple[int, int, int, int]


SPLITS: dict[SplitName, Split] = {
    "train": Split((0, 1200), (240, 0, 640, 427)),
    "test": Split((1200, 1650), (0, 0, 240, 427)),
    "new": Split((1650, 1797), (0, 0, 240, 427)),
}


@dataclass(frozen=True)
class DemoImage:
    """One image and its content.

    Attributes:
        image: an RGB image.
        truth: one box per digit; labels are the digits.
        digits: indices into the 1,797 digits, in the order of the boxes.
        photograph: index of the photograph, 0 or 1.
        crop: ``(x0, y0, x1, y1)``, the pixels of the photograph in the background.
    """

    image: Image.Image
    truth: GroundTruth
    digits: tuple[int, ...]
    photograph: int
    crop: tuple[int, int, int, int]


def detection_images(split: SplitName, count: int, seed: int = 0) -> Iterator[DemoImage]:
    """Create images of 280 to 480 pixels per side with up to nine digits of about 30 to 120 pixels.

    Digits repeat only after all digits of the split have been used.

    Args:
        split: the split.
        count: number of images.
        seed: the seed.

    Yields:
        The images.
    """
    rng = np.random.default_rng([seed, list(SPLITS).index(split), 0])
    order = _endless(rng, range(*SPLITS[split].digits))
    for _ in range(count):
        long, ratio = rng.uniform(380, 480), np.exp(rng.uniform(0, np.log(1.6)))
        sides = int(max(280.0, long / ratio)), int(long)
        size = ImageSize(*(sides if rng.random() < 0.6 else sides[::-1]))
        backdrop, photograph, crop = _backdrop(rng, split, size)
        digits = int(rng.integers(4, 10))
        heights = np.exp(rng.uniform(np.log(32), np.log(min(120, 0.4 * size.short_side)), digits))
        # By descending size, because small digits fit between large ones.
        chosen = [(next(order), float(height)) for height in sorted(heights, reverse=True)]
        yield _compose(rng, backdrop, chosen, photograph, crop)


def class_images(split: SplitName, count: int, seed: int = 0) -> Iterator[DemoImage]:
    """Create images of about 50 to 250 pixels per side with one digit each, in turn of the ten classes.

    The distances between the digit and the four edges of the image are random, 5 to 35 % of its sides.

    Args:
        split: the split.
        count: number of images.
        seed: the seed.

    Yields:
        The images.
    """
    rng = np.random.default_rng([seed, list(SPLITS).index(split), 1])
    labels = _digits()[1]
    numbers = range(*SPLITS[split].digits)
    orders = [_endless(rng, [i for i in numbers if labels[i] == label]) for label in range(10)]
    for k in range(count):
        digit = next(orders[k % 10])
        mask = _stretch(rng, _digits()[0][digit], float(rng.uniform(64, 150)))
        height, width = mask.shape
        top, bottom = (int(v) for v in rng.uniform(0.05, 0.35, 2) * height)
        left, right = (int(v) for v in rng.uniform(0.05, 0.35, 2) * width)
        size = ImageSize(top + height + bottom, left + width + right)
        backdrop, photograph, crop = _backdrop(rng, split, size)
        _paste(rng, backdrop, mask, (left, top))
        box = (left, top, left + width, top + height)
        yield _finish(rng, backdrop, {digit: box}, photograph, crop)


@functools.cache
def _digits() -> tuple[Pixels, NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    found = load_digits(return_X_y=True)
    values, labels = np.asarray(found[0], np.float32), np.asarray(found[1], np.int64)
    return (values.reshape(-1, 8, 8) / 16).astype(np.float32), labels


@functools.cache
def _photographs() -> tuple[Image.Image, ...]:
    from sklearn.datasets import load_sample_image

    return tuple(Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg"))


def _endless(rng: np.random.Generator, numbers: Sequence[int]) -> Iterator[int]:
    """Yield random permutations of the numbers, one after the other, without end."""
    return itertools.chain.from_iterable(rng.permutation(numbers).tolist() for _ in itertools.count())


def _backdrop(
    rng: np.random.Generator, split: SplitName, size: ImageSize
) -> tuple[Pixels, int, tuple[int, int, int, int]]:
    """Create a background ``[H, W, 3]``: a crop of a photograph, randomly flipped and relit."""
    x0, y0, x1, y1 = SPLITS[split].region
    zoom = min((y1 - y0) / size.height, (x1 - x0) / size.width) * rng.uniform(0.65, 1.0)
    height, width = int(size.height * zoom), int(size.width * zoom)
    left = int(rng.integers(x0, x1 - width + 1))
    top = int(rng.integers(y0, y1 - height + 1))
    crop = (left, top, left + width, top + height)
    photograph = int(rng.integers(2))
    # Cropping before resizing, because interpolation of the photograph would use pixels outside the crop.
    image = _photographs()[photograph].crop(crop).resize((size.width, size.height), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    lit = np.asarray(image, dtype=np.float32) / 255 * rng.uniform(0.7, 1.25) + rng.uniform(-0.08, 0.08)
    return lit.clip(0, 1).astype(np.float32), photograph, crop


def _compose(
    rng: np.random.Generator,
    canvas: Pixels,
    chosen: Sequence[tuple[int, float]],
    photograph: int,
    crop: tuple[int, int, int, int],
) -> DemoImage:
    """Paste digits of the given heights at free positions; digits without a free position are skipped."""
    size = ImageSize(*canvas.shape[:2])
    pasted: dict[int, tuple[int, int, int, int]] = {}
    for digit, height in chosen:
        mask = _stretch(rng, _digits()[0][digit], height)
        corner = _free_corner(rng, mask, size, list(pasted.values()))
        if corner is None:
            continue
        _paste(rng, canvas, mask, corner)
        pasted[digit] = (*corner, corner[0] + mask.shape[1], corner[1] + mask.shape[0])
    return _finish(rng, canvas, pasted, photograph, crop)


def _finish(
    rng: np.random.Generator,
    canvas: Pixels,
    pasted: dict[int, tuple[int, int, int, int]],
    photograph: int,
    crop: tuple[int, int, int, int],
) -> DemoImage:
    """Add noise to the canvas and create the image with its annotation."""
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.02))
    image = Image.fromarray(((canvas + noise).clip(0, 1) * 255).round().astype(np.uint8))
    boxes = torch.tensor(list(pasted.values()), dtype=torch.float32).reshape(-1, 4)
    digits = tuple(pasted)
    truth = GroundTruth.make(
        Boxes(boxes, ImageSize(*canvas.shape[:2])), torch.from_numpy(_digits()[1][list(digits)]), DIGIT_NAMES
    )
    return DemoImage(image, truth, digits, photograph, crop)


def _stretch(rng: np.random.Generator, digit: Pixels, height: float) -> Pixels:
    """Slant, stretch and smooth a digit to about ``height`` pixels; return opacities without blank edges."""
    slant = rng.uniform(-0.2, 0.2)
    stretch = np.exp(rng.uniform(np.log(0.75), np.log(1.5)))
    scale = height / 8
    width = scale * stretch
    padding = 2
    padded = Image.fromarray((np.pad(digit, padding) * 255).round().astype(np.uint8))
    side = 8 + 2 * padding
    size = round(side * width), round(side * scale)
    # The matrix maps output pixels to pixels of the padded digit.
    matrix = (1 / width, slant / width, -slant * side * scale / 2 / width, 0, 1 / scale, 0)
    ink = padded.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    smooth = np.asarray(ink.filter(ImageFilter.BoxBlur(scale / 8)), dtype=np.float32) / 255
    opacity = ((smooth - 0.35) / 0.25).clip(0, 1)
    rows, columns = (np.flatnonzero((opacity > 0.5).any(axis)) for axis in (1, 0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_corner(
    rng: np.random.Generator, mask: Pixels, size: ImageSize, others: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int] | None:
    """Find a free top left corner ``(x, y)`` for the mask; None after fifty unsuccessful attempts."""
    height, width = mask.shape
    if height > size.height or width > size.width:
        return None
    for _ in range(50):
        x = int(rng.integers(0, size.width - width + 1))
        y = int(rng.integers(0, size.height - height + 1))
        # Boxes may overlap by a tenth of the smaller side, as they do in photographs.
        slack = 0.1 * min(height, width)
        if all(
            x + width <= x0 + slack or x >= x1 - slack or y + height <= y0 + slack or y >= y1 - slack
            for x0, y0, x1, y1 in others
        ):
            return x, y
    return None


def _paste(rng: np.random.Generator, canvas: Pixels, mask: Pixels, corner: tuple[int, int]) -> None:
    """Blend a digit into the canvas in a random colour with contrast to the background."""
    x, y = corner
    background = canvas[y : y + mask.shape[0], x : x + mask.shape[1]]
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    luma = background[::3, ::3] @ weights
    inks = rng.uniform(0, 1, (12, 3)).astype(np.float32)
    # The contrast to 85 % of the pixels counts; with the mean contrast, half of a digit could be invisible.
    contrasts = [float(np.quantile(np.abs(luma - ink @ weights), 0.15)) for ink in inks]
    sufficient = np.flatnonzero(np.array(contrasts) > 0.35)
    ink = inks[sufficient[0] if len(sufficient) else int(np.argmax(contrasts))]
    opacity = (mask * rng.uniform(0.9, 1.0))[..., None]
    background[...] = background * (1 - opacity) + ink * opacity

"""Images for the demonstration: real handwritten digits pasted on crops of two real photographs.

scikit-learn brings both: 1,797 digits of 8 x 8 pixels and two photographs of 640 x 427. The part for
training shares neither a digit nor a pixel of a photograph with the parts for test and for new images:
the digits are split by their number, the photographs at a column. Everything comes from a seed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from sppnet.structures import Boxes, GroundTruth, ImageSize

__all__ = [
    "DIGIT_NAMES",
    "PARTS",
    "DemoImage",
    "Part",
    "PartName",
    "class_images",
    "detection_images",
]

DIGIT_NAMES = tuple("0123456789")

Pixels = NDArray[np.float32]
PartName = Literal["train", "test", "new"]


@dataclass(frozen=True)
class Part:
    """What one part of the demonstration may draw on.

    Attributes:
        digits: the first digit and the one after the last.
        region: ``(x0, y0, x1, y1)``, the pixels of both photographs that it may crop from.
    """

    digits: tuple[int, int]
    region: tuple[int, int, int, int]


PARTS: dict[PartName, Part] = {
    "train": Part((0, 1200), (240, 0, 640, 427)),
    "test": Part((1200, 1650), (0, 0, 240, 427)),
    "new": Part((1650, 1797), (0, 0, 240, 427)),
}


@dataclass(frozen=True)
class DemoImage:
    """One image and what was put into it.

    Attributes:
        image: RGB.
        truth: a box for each digit; labels are the digits.
        digits: which of the 1,797 they are, in the order of the boxes.
        photograph: 0 or 1.
        crop: ``(x0, y0, x1, y1)``, the pixels of the photograph that lie behind them.
    """

    image: Image.Image
    truth: GroundTruth
    digits: tuple[int, ...]
    photograph: int
    crop: tuple[int, int, int, int]


def detection_images(part: PartName, count: int, seed: int = 0) -> Iterator[DemoImage]:
    """``count`` images of 280 to 480 pixels a side with four to nine digits of about 30 to 120 pixels.

    A digit comes again only when the part's digits are used up.
    """
    rng = np.random.default_rng([seed, list(PARTS).index(part), 0])
    order = _endless(rng, range(*PARTS[part].digits))
    for _ in range(count):
        long, ratio = rng.uniform(380, 480), np.exp(rng.uniform(0, np.log(1.6)))
        sides = int(max(280.0, long / ratio)), int(long)
        size = ImageSize(*(sides if rng.random() < 0.6 else sides[::-1]))
        backdrop, photograph, crop = _backdrop(rng, part, size)
        wanted = int(rng.integers(4, 10))
        heights = np.exp(rng.uniform(np.log(32), np.log(min(120, 0.4 * size.short_side)), wanted))
        # The largest first: small digits still find room between large ones.
        chosen = [(next(order), float(height)) for height in sorted(heights, reverse=True)]
        yield _compose(rng, backdrop, chosen, photograph, crop)


def class_images(part: PartName, count: int, seed: int = 0) -> Iterator[DemoImage]:
    """``count`` images of about 50 to 250 pixels a side with one digit each; the ten classes take turns.

    Around the digit there is a margin of 5 to 35 % of its sides, another on each side.
    """
    rng = np.random.default_rng([seed, list(PARTS).index(part), 1])
    labels = _digits()[1]
    numbers = range(*PARTS[part].digits)
    orders = [_endless(rng, [i for i in numbers if labels[i] == label]) for label in range(10)]
    for k in range(count):
        digit = next(orders[k % 10])
        mask = _stretch(rng, _digits()[0][digit], float(rng.uniform(64, 150)))
        height, width = mask.shape
        top, bottom = (int(v) for v in rng.uniform(0.05, 0.35, 2) * height)
        left, right = (int(v) for v in rng.uniform(0.05, 0.35, 2) * width)
        size = ImageSize(top + height + bottom, left + width + right)
        backdrop, photograph, crop = _backdrop(rng, part, size)
        _paste(rng, backdrop, mask, (left, top))
        box = (left, top, left + width, top + height)
        yield _finish(rng, backdrop, {digit: box}, photograph, crop)


@functools.cache
def _digits() -> tuple[Pixels, NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    # Frames come with as_frame only; scikit-learn's types do not say so.
    values, labels = cast("tuple[NDArray[np.float64], NDArray[np.int64]]", load_digits(return_X_y=True))
    return (values.reshape(-1, 8, 8) / 16).astype(np.float32), labels.astype(np.int64)


@functools.cache
def _photographs() -> tuple[Image.Image, ...]:
    from sklearn.datasets import load_sample_image

    return tuple(Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg"))


def _endless(rng: np.random.Generator, numbers: Sequence[int]) -> Iterator[int]:
    return itertools.chain.from_iterable(rng.permutation(numbers).tolist() for _ in itertools.count())


def _backdrop(
    rng: np.random.Generator, part: PartName, size: ImageSize
) -> tuple[Pixels, int, tuple[int, int, int, int]]:
    """A crop of a photograph, of the shape of ``size``, flipped and relit by chance: ``[H, W, 3]``."""
    x0, y0, x1, y1 = PARTS[part].region
    room = min((y1 - y0) / size.height, (x1 - x0) / size.width)
    zoom = room * rng.uniform(0.65, 1.0)
    height, width = int(size.height * zoom), int(size.width * zoom)
    left = int(rng.integers(x0, x1 - width + 1))
    top = int(rng.integers(y0, y1 - height + 1))
    crop = (left, top, left + width, top + height)
    photograph = int(rng.integers(2))
    # Cropped first: an interpolation over the whole photograph would look beyond the crop.
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
    """Paste digits of given heights where they fit; one that finds no room is left out."""
    size = ImageSize(*canvas.shape[:2])
    pasted: dict[int, tuple[int, int, int, int]] = {}
    for digit, height in chosen:
        mask = _stretch(rng, _digits()[0][digit], height)
        place = _place(rng, mask, size, list(pasted.values()))
        if place is None:
            continue
        _paste(rng, canvas, mask, place)
        pasted[digit] = (*place, place[0] + mask.shape[1], place[1] + mask.shape[0])
    return _finish(rng, canvas, pasted, photograph, crop)


def _finish(
    rng: np.random.Generator,
    canvas: Pixels,
    pasted: dict[int, tuple[int, int, int, int]],
    photograph: int,
    crop: tuple[int, int, int, int],
) -> DemoImage:
    """Add a camera's noise and say what the canvas holds: digits and their boxes."""
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.02))
    image = Image.fromarray(((canvas + noise).clip(0, 1) * 255).round().astype(np.uint8))
    boxes = torch.tensor(list(pasted.values()), dtype=torch.float32).reshape(-1, 4)
    digits = tuple(pasted)
    truth = GroundTruth.make(
        Boxes(boxes, ImageSize(*canvas.shape[:2])), torch.from_numpy(_digits()[1][list(digits)]), DIGIT_NAMES
    )
    return DemoImage(image, truth, digits, photograph, crop)


def _stretch(rng: np.random.Generator, digit: Pixels, height: float) -> Pixels:
    """The digit slanted, stretched and smoothed to about ``height`` pixels: opacities, trimmed to the ink."""
    slant = rng.uniform(-0.2, 0.2)
    stretch = np.exp(rng.uniform(np.log(0.75), np.log(1.5)))
    scale = height / 8
    width = scale * stretch
    margin = 2
    padded = Image.fromarray((np.pad(digit, margin) * 255).round().astype(np.uint8))
    side = 8 + 2 * margin
    tall, wide = round(side * scale), round(side * width)
    # The transform asks where each output pixel comes from, in the padded digit's pixels.
    turned = (1 / width, slant / width, -slant * side * scale / 2 / width, 0, 1 / scale, 0)
    ink = padded.transform((wide, tall), Image.Transform.AFFINE, turned, Image.Resampling.BICUBIC)
    smooth = np.asarray(ink.filter(ImageFilter.BoxBlur(scale / 8)), dtype=np.float32) / 255
    opacity = ((smooth - 0.35) / 0.25).clip(0, 1)
    rows, columns = (np.flatnonzero((opacity > 0.5).any(axis)) for axis in (1, 0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    rng: np.random.Generator, mask: Pixels, size: ImageSize, taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int] | None:
    """A free place ``(x, y)`` for the mask; None when fifty tries find none."""
    height, width = mask.shape
    if height > size.height or width > size.width:
        return None
    for _ in range(50):
        x = int(rng.integers(0, size.width - width + 1))
        y = int(rng.integers(0, size.height - height + 1))
        # Boxes may touch a little, as in real scenes: a tenth of the smaller side.
        slack = 0.1 * min(height, width)
        if all(
            x + width <= x0 + slack or x >= x1 - slack or y + height <= y0 + slack or y >= y1 - slack
            for x0, y0, x1, y1 in taken
        ):
            return x, y
    return None


def _paste(rng: np.random.Generator, canvas: Pixels, mask: Pixels, place: tuple[int, int]) -> None:
    """Blend the digit into the canvas in a colour that stands out from what lies behind it."""
    x, y = place
    behind = canvas[y : y + mask.shape[0], x : x + mask.shape[1]]
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    luma = behind[::3, ::3] @ weights
    inks = rng.uniform(0, 1, (12, 3)).astype(np.float32)
    # Nearly all of what lies behind must differ: a mean would let a digit vanish into half of it.
    contrasts = [float(np.quantile(np.abs(luma - ink @ weights), 0.15)) for ink in inks]
    enough = np.flatnonzero(np.array(contrasts) > 0.35)
    ink = inks[enough[0] if len(enough) else int(np.argmax(contrasts))]
    opacity = (mask * rng.uniform(0.9, 1.0))[..., None]
    behind[...] = behind * (1 - opacity) + ink * opacity

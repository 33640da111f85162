"""From annotated numbers to `GroundTruth`: what every layout's reader checks in the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sppnet.data.images import image_shape
from sppnet.errors import UserError
from sppnet.structures import Boxes, GroundTruth, ImageSize

OVERHANG = 1.0
"""Pixels by which a box may leave its image, for rounding's sake; it is clipped then."""


@dataclass(frozen=True)
class Annotated:
    """One object as a file describes it.

    Attributes:
        where: the file and the place in it, for messages.
        shown: the box as the file has it, for messages.
        xyxy: its box in pixels, continuous edges.
        label: its class number.
        difficult: VOC's flag.
        crowd: COCO's flag.
    """

    where: str
    shown: str
    xyxy: tuple[float, float, float, float]
    label: int
    difficult: bool = False
    crowd: bool = False


def make_truth(objects: Sequence[Annotated], names: tuple[str, ...], size: ImageSize) -> GroundTruth:
    """The objects of one image, their boxes clipped to it.

    A box without area stays as it is: COCO has some, and its metric counts them.

    Raises:
        UserError: a box that is no box, or that leaves its image by more than `OVERHANG`.
    """
    kept = [_checked(found, size) for found in objects]
    xyxy = torch.tensor(kept, dtype=torch.float32).reshape(-1, 4)
    return GroundTruth(
        Boxes(xyxy, size),
        torch.tensor([found.label for found in objects], dtype=torch.int64),
        names,
        torch.tensor([found.difficult for found in objects], dtype=torch.bool),
        torch.tensor([found.crowd for found in objects], dtype=torch.bool),
    )


def _checked(found: Annotated, size: ImageSize) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = found.xyxy
    if not all(map(math.isfinite, found.xyxy)) or x1 < x0 or y1 < y0:
        raise UserError(
            found.where, "a box whose left lies left of its right and whose top above its bottom", found.shown
        )
    over = max(-x0, -y0, x1 - size.width, y1 - size.height)
    outside = x0 >= size.width or y0 >= size.height or x1 <= 0 or y1 <= 0
    if over > OVERHANG or outside:
        wanted = f"a box inside its image of {size.width} x {size.height} pixels (width x height)"
        raise UserError(found.where, wanted, found.shown, "Correct the box or take it out")
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(size.width)), min(y1, float(size.height))


def size_of_annotated(image: Path, annotation: Path, stated: ImageSize | None) -> ImageSize:
    """The size of an image after EXIF rotation, to which its boxes must refer.

    The image is trusted, not what the annotation states of it, but for one case.

    Args:
        image: the image.
        annotation: the file that describes it, for the message.
        stated: the size that the annotation gives.

    Raises:
        UserError: no readable image; or EXIF rotation swaps its sides and ``stated`` is its size before
            that: then its boxes would land on the wrong objects.
    """
    size, turned = image_shape(image)
    if turned and stated is not None and stated != size and stated == ImageSize(size.width, size.height):
        wanted = f"boxes on {image.name} as it is shown, {size.width} x {size.height} (width x height)"
        got = f"the size before its EXIF rotation, {stated.width} x {stated.height}"
        raise UserError(annotation, wanted, got, "Rotate the image's pixels and drop its EXIF orientation")
    return size

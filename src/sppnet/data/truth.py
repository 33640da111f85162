"""Check annotated boxes and convert them to `GroundTruth`, for the readers of all layouts."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sppnet.data.images import image_shape
from sppnet.errors import UserError
from sppnet.inputs.values import whole
from sppnet.inputs.words import plural, shortened
from sppnet.structures import Boxes, GroundTruth, ImageSize

NO_SIZE = ImageSize(1, 1)
"""The size of a damaged image, whose objects are not read."""

OVERHANG = 1.0
"""Pixels by which a box may exceed its image because of rounding; it is clipped."""

_ROUNDING = 2  # pixels by which a stated size may differ before boxes are scaled


@dataclass(frozen=True)
class Annotated:
    """An annotated object.

    Attributes:
        where: the file and the position in it, for messages.
        shown: the box as written in the file, for messages.
        xyxy: the box in pixels, with continuous edges.
        label: the class number.
        difficult: the flag ``difficult`` of VOC.
        crowd: the flag ``iscrowd`` of COCO.
    """

    where: str
    shown: str
    xyxy: tuple[float, float, float, float]
    label: int
    difficult: bool = False
    crowd: bool = False


def make_truth(objects: Sequence[Annotated], names: tuple[str, ...], size: ImageSize) -> GroundTruth:
    """Convert the objects of an image, with boxes clipped to it.

    A box without area is not removed, because COCO has some and its metric counts them.

    Raises:
        UserError: a box is invalid or exceeds its image by more than `OVERHANG`.
    """
    boxes = [_checked(found, size) for found in objects]
    xyxy = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
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
        raise UserError(found.where, "a box with x0 <= x1 and y0 <= y1", found.shown)
    excess = max(-x0, -y0, x1 - size.width, y1 - size.height)
    outside = x0 >= size.width or y0 >= size.height or x1 <= 0 or y1 <= 0
    if excess > OVERHANG or outside:
        expected = f"a box inside its image of {size.width} x {size.height} pixels (width x height)"
        raise UserError(found.where, expected, found.shown, "Correct or remove the box.")
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(size.width)), min(y1, float(size.height))


class Sizes:
    """Scale the boxes of a data set to the sizes of its images.

    Images are often resized after they were labelled. If the size in the annotation differs from that of the
    image by a factor, the boxes are scaled by it.

    Examples:
        >>> Sizes().notes()
        ()
    """

    def __init__(self) -> None:
        self._scaled: list[str] = []

    def truth(
        self,
        image: Path,
        annotation: Path,
        stated: ImageSize | None,
        objects: Sequence[Annotated],
        names: tuple[str, ...],
    ) -> GroundTruth:
        """Convert the objects of an image, after EXIF rotation; a damaged image gets none.

        Args:
            image: the image.
            annotation: the annotation file, for messages.
            stated: the size in the annotation.
            objects: the objects, in pixels of the stated size.
            names: the class names of the data set.

        Raises:
            UserError: the image is missing, a box is outside of it, the stated size is that before EXIF
                rotation, or the stated size has another aspect ratio than the image.
        """
        shape = readable_shape(image)
        if shape is None:
            return make_truth((), names, stated or NO_SIZE)
        size, swapped = shape
        if stated is None or stated == size:
            return make_truth(objects, names, size)
        if swapped and stated == ImageSize(size.width, size.height):
            expected = f"boxes on {image.name} after its EXIF rotation, {_sides(size)}"
            got = f"the size before its EXIF rotation, {_sides(stated)}"
            raise UserError(
                annotation, expected, got, "Rotate the image's pixels and drop its EXIF orientation."
            )
        difference = max(abs(stated.width - size.width), abs(stated.height - size.height))
        if not objects or difference <= _ROUNDING:
            return make_truth(objects, names, size)
        if not _same_aspect(stated, size):
            expected = f"the size of {image.name}, {_sides(size)}"
            hint = "Correct the stated size and the boxes, or remove both."
            raise UserError(annotation, expected, f"a stated size of {_sides(stated)}", hint)
        change = f"{image.name} from {_sides(stated)} to {_sides(size)}"
        self._scaled.append(change)
        across, down = size.width / stated.width, size.height / stated.height
        return make_truth([_scaled(one, across, down, change) for one in objects], names, size)

    def notes(self) -> tuple[str, ...]:
        """Return a note on the images whose boxes were scaled; empty if there are none."""
        if not self._scaled:
            return ()
        count = plural(len(self._scaled), "image differs", "images differ")
        return (
            f"{count} in size from the annotation; the boxes were scaled: {shortened(self._scaled, most=2)}",
        )


def readable_shape(image: Path) -> tuple[ImageSize, bool] | None:
    """Return the size of an image and whether EXIF rotation swaps its sides; None for a damaged file.

    Readers accept damaged images, because `check_images` lists all of them later.

    Raises:
        UserError: the file is missing.
    """
    try:
        return image_shape(image)
    except UserError:
        if not image.is_file():
            raise
        return None


def _sides(size: ImageSize) -> str:
    return f"{size.width} x {size.height} (width x height)"


def _same_aspect(stated: ImageSize, size: ImageSize) -> bool:
    """Return whether two sizes differ by a factor, up to rounding to whole pixels."""
    factor = max(size.width, size.height) / max(stated.width, stated.height)
    difference = max(abs(size.width - stated.width * factor), abs(size.height - stated.height * factor))
    return difference <= 1 + factor / 2


def _scaled(found: Annotated, across: float, down: float, change: str) -> Annotated:
    x0, y0, x1, y1 = found.xyxy
    xyxy = (x0 * across, y0 * down, x1 * across, y1 * down)
    return replace(found, xyxy=xyxy, shown=f"{found.shown}, scaled as {change}")


def stated_size(height: object, width: object) -> ImageSize | None:
    """Parse the size of an annotation; None if it is missing, 0 or not a number."""
    try:
        return ImageSize(whole(height, ""), whole(width, ""))
    except UserError:
        return None


def merged_names(
    pairs: Sequence[tuple[int | str, str]], used: Container[int | str]
) -> tuple[dict[str, int | str], tuple[str, ...]]:
    """Merge classes of the same name, and return the id of each name and a note on merged names.

    The id of merged classes is the last one with objects, else the last one.

    Args:
        pairs: id and name of every class, in the order of the class numbers.
        used: the ids with objects.
    """
    table: dict[str, int | str] = {}
    shared: dict[str, None] = {}
    for key, name in pairs:
        if name in table:
            shared[name] = None
            if table[name] in used and key not in used:
                continue
            del table[name]
        table[name] = key
    if not shared:
        return table, ()
    return table, (
        f"{plural(len(shared), 'name')} of several classes merged into one class: {shortened(list(shared))}",
    )

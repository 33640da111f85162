"""From annotated numbers to `GroundTruth`: what every layout's reader checks and reports in the same way."""

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
"""Stands for the size of a damaged image, of which no objects are read."""

OVERHANG = 1.0
"""Pixels by which a box may leave its image, for rounding's sake; it is clipped then."""

_ROUNDING = 2  # pixels by which a stated size may be off before boxes are scaled


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
        raise UserError(found.where, wanted, found.shown, "Correct the box or take it out.")
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(size.width)), min(y1, float(size.height))


class Sizes:
    """The sizes of a data set's images, and how its boxes have to be scaled to fit them.

    The image is trusted, not what the annotation states of it: images are often resized after they were
    labelled. Where both differ by a factor, the boxes are scaled by it.

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
        """The objects of one image on its size after EXIF rotation; none of a damaged image.

        Args:
            image: the image.
            annotation: the file that describes it, for messages.
            stated: the size that the annotation gives.
            objects: its objects, in pixels of the stated size.
            names: the class names of the data set.

        Raises:
            UserError: no such image; a box outside it; EXIF rotation swaps its sides and ``stated``
                is its size before that; or the stated size has another aspect than the image.
        """
        shape = shape_of_sound(image)
        if shape is None:
            return make_truth((), names, stated or NO_SIZE)
        size, turned = shape
        if stated is None or stated == size:
            return make_truth(objects, names, size)
        if turned and stated == ImageSize(size.width, size.height):
            expected = f"boxes on {image.name} as it is shown, {_sides(size)}"
            got = f"the size before its EXIF rotation, {_sides(stated)}"
            raise UserError(
                annotation, expected, got, "Rotate the image's pixels and drop its EXIF orientation."
            )
        off = max(abs(stated.width - size.width), abs(stated.height - size.height))
        if not objects or off <= _ROUNDING:
            return make_truth(objects, names, size)
        if not _same_aspect(stated, size):
            expected = f"the size of {image.name}, {_sides(size)}"
            todo = "Its boxes cannot be placed: correct the stated size and the boxes, or remove both."
            raise UserError(annotation, expected, f"a stated size of {_sides(stated)}", todo)
        change = f"{image.name} from {_sides(stated)} to {_sides(size)}"
        self._scaled.append(change)
        across, down = size.width / stated.width, size.height / stated.height
        return make_truth([_scaled(one, across, down, change) for one in objects], names, size)

    def notes(self) -> tuple[str, ...]:
        """One sentence on the images whose boxes were scaled; nothing where there are none."""
        if not self._scaled:
            return ()
        count = plural(len(self._scaled), "image differs", "images differ")
        return (
            f"{count} in size from the annotation; the boxes were scaled: {shortened(self._scaled, most=2)}",
        )


def shape_of_sound(image: Path) -> tuple[ImageSize, bool] | None:
    """The size of an image and whether EXIF rotation swapped its sides; None of a damaged file.

    A reader goes on then: `check_images` lists all damaged images of a data set together.

    Raises:
        UserError: no such file.
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
    """Whether one size is the other times a factor, both rounded to whole pixels."""
    factor = max(size.width, size.height) / max(stated.width, stated.height)
    off = max(abs(size.width - stated.width * factor), abs(size.height - stated.height * factor))
    return off <= 1 + factor / 2


def _scaled(found: Annotated, across: float, down: float, change: str) -> Annotated:
    x0, y0, x1, y1 = found.xyxy
    xyxy = (x0 * across, y0 * down, x1 * across, y1 * down)
    return replace(found, xyxy=xyxy, shown=f"{found.shown}, scaled as {change}")


def stated_size(height: object, width: object) -> ImageSize | None:
    """The size that an annotation gives; None where it is missing, 0 or no number."""
    try:
        return ImageSize(whole(height, ""), whole(width, ""))
    except UserError:
        return None


def merged_names(
    pairs: Sequence[tuple[int | str, str]], used: Container[int | str]
) -> tuple[dict[str, int | str], tuple[str, ...]]:
    """One class for each name: its identifier, and a note on the names that several classes have.

    Of several identifiers of one name the last one with objects is taken, else the last.

    Args:
        pairs: identifier and name of every class, in the order of their numbers.
        used: the identifiers that have objects.
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
        f"{plural(len(shared), 'name')} of several classes counted as one class: {shortened(list(shared))}",
    )

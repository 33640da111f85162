"""Several images on one."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from sppnet.draw.boxes import DrawSource, as_image, draw_boxes, font_of
from sppnet.errors import UserError
from sppnet.files import make_folder, write_bytes
from sppnet.structures import Detections, GroundTruth

_GROUND = (250, 250, 250)
_INK = (30, 30, 30)


def draw_comparison(
    image: DrawSource, truth: GroundTruth, found: Detections, threshold: float | None = None
) -> Image.Image:
    """What was annotated, left, and what was found, right, each with its count.

    Classes of the same name have the same colour on both sides when both number them alike.

    Args:
        image: as in `draw_boxes`.
        truth: the annotated objects.
        found: the detections.
        threshold: detections with a lower score are left out.

    Raises:
        UserError: as `draw_boxes`.
    """
    shown = found if threshold is None else found[found.scores >= threshold]
    sides = [draw_boxes(image, truth), draw_boxes(image, shown)]
    return contact_sheet(sides, 2, [f"annotated: {len(truth)}", f"found: {len(shown)}"], sides[0].width)


def contact_sheet(
    images: Sequence[DrawSource], columns: int = 3, captions: Sequence[str] | None = None, width: int = 480
) -> Image.Image:
    """Images in rows on a light ground, each shrunk to its column where it is larger; never enlarged.

    Args:
        images: PIL images, uint8 ``[H, W, 3]`` or float ``[3, H, W]``.
        columns: the most images a row.
        captions: a line below each, shortened to the column's width.
        width: pixels a column; as high as wide is an image's room at most.

    Raises:
        UserError: no image, a number of captions other than of images, fewer than one column or a
            width below 32.
    """
    if not images or columns < 1 or width < 32:
        got = f"{len(images)} images, {columns} columns of {width}"
        raise UserError("contact_sheet", "at least one image and one column of at least 32 pixels", got)
    if captions is not None and len(captions) != len(images):
        raise UserError("captions", f"{len(images)}, one an image", len(captions))
    tiles = [_shrunk(as_image(image), width) for image in images]
    gap = max(6, width // 40)
    font = font_of(min(max(11.0, width / 28), 24.0))
    line = 0 if captions is None else sum(font.getmetrics()) + gap
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + line for row in rows]
    across = min(columns, len(tiles))
    sheet = Image.new("RGB", (across * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)), _GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left = gap + column * (width + gap)
        top = gap + sum(heights[:row]) + gap * row
        sheet.paste(tile, (left + (width - tile.width) // 2, top))
        if captions is not None:
            text = captions[number]
            while len(text) > 4 and font.getlength(text) > width:
                text = text.removesuffix("...")[:-1] + "..."
            draw.text((left + width / 2, top + tile.height + gap / 2), text, _INK, font, "ma")
    return sheet


def save_image(path: str | os.PathLike[str], image: Image.Image | bytes) -> None:
    """Write an image by its ending (.jpg with quality 92, .png, ...), or encoded bytes as they are.

    The file is written beside its place and then renamed; its folder is made where missing.

    Raises:
        UserError: an ending that names no file type of images.
    """
    target = Path(path)
    if isinstance(image, bytes):
        content = image
    else:
        kind = Image.registered_extensions().get(target.suffix.lower())
        if kind is None or kind not in Image.SAVE:
            raise UserError(target, "an ending such as .jpg or .png", target.suffix or "none")
        buffer = io.BytesIO()
        image.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}))
        content = buffer.getvalue()
    make_folder(target.parent)
    write_bytes(target, content)


def _shrunk(image: Image.Image, most: int) -> Image.Image:
    share = most / max(image.size)
    if share >= 1:
        return image
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return image.resize(size, Image.Resampling.LANCZOS)

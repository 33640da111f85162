"""Contact sheets and comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from sppnet.draw.boxes import DrawSource, as_image, draw_boxes
from sppnet.draw.fonts import font_of
from sppnet.errors import UserError, visible
from sppnet.structures import Detections, GroundTruth

_BACKGROUND = (250, 250, 250)
_TEXT = (30, 30, 30)


def draw_comparison(
    image: DrawSource, truth: GroundTruth, found: Detections, threshold: float | None = None
) -> Image.Image:
    """Draw annotations and detections of an image side by side, with their counts.

    Colours depend on the class number: the same class has the same colour on both sides if both have the
    same class names.

    Args:
        image: as in `draw_boxes`.
        truth: the annotated objects, drawn on the left.
        found: the detections, drawn on the right.
        threshold: minimum score of the detections to draw; all by default.

    Returns:
        A new RGB image.

    Raises:
        UserError: as `draw_boxes`.

    Examples:
        >>> import torch
        >>> from sppnet.structures import Boxes, ImageSize
        >>> boxes = Boxes(torch.tensor([[10.0, 20, 300, 200]]), ImageSize(240, 400))
        >>> truth = GroundTruth.make(boxes, torch.tensor([0]), ("cat",))
        >>> found = Detections(boxes, torch.tensor([0.9]), torch.tensor([0]), ("cat",))
        >>> draw_comparison(Image.new("RGB", (400, 240)), truth, found).width > 800
        True
    """
    shown = found if threshold is None else found[found.scores >= threshold]
    sides = [draw_boxes(image, truth), draw_boxes(image, shown)]
    return contact_sheet(sides, 2, [f"annotated: {len(truth)}", f"found: {len(shown)}"], sides[0].width)


def contact_sheet(
    images: Sequence[DrawSource], columns: int = 3, captions: Sequence[str] | None = None, width: int = 480
) -> Image.Image:
    """Arrange images in a grid on a light background.

    Images that are larger than a cell are reduced; smaller images have their original size.

    Args:
        images: PIL images, arrays uint8 ``[H, W, 3]`` or tensors float ``[3, H, W]``.
        columns: maximum number of images per row.
        captions: one line of text per image, truncated to the width of the column.
        width: width and maximum height of a cell in pixels, at least 32.

    Returns:
        A new RGB image.

    Raises:
        UserError: there are no images, the number of captions differs from that of the images, or
            ``columns`` or ``width`` is out of range.

    Examples:
        >>> contact_sheet([Image.new("RGB", (400, 240))] * 4, columns=2, width=100).size
        (218, 138)
    """
    if not images or columns < 1 or width < 32:
        got = f"{len(images)} images, {columns} columns of {width}"
        raise UserError("contact_sheet", "at least one image and one column of at least 32 pixels", got)
    if captions is not None and len(captions) != len(images):
        raise UserError("captions", f"{len(images)}, one per image", len(captions))
    tiles = [_reduced(as_image(image), width) for image in images]
    gap = max(6, width // 40)
    points = min(max(11.0, width / 28), 24.0)
    texts = [visible(caption) for caption in captions or ()]
    font = font_of(points, "".join(texts))
    line = 0 if captions is None else sum(font.getmetrics()) + gap
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + line for row in rows]
    size = min(columns, len(tiles)) * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left = gap + column * (width + gap)
        top = gap + sum(heights[:row]) + gap * row
        sheet.paste(tile, (left + (width - tile.width) // 2, top))
        if captions is not None:
            text = texts[number]
            font = font_of(points, text)
            while len(text) > 4 and font.getlength(text) > width:
                text = text.removesuffix("...")[:-1] + "..."
            draw.text((left + width / 2, top + tile.height + gap / 2), text, _TEXT, font, "ma")
    return sheet


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """Reduce an image until its longer side is at most ``side``."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)

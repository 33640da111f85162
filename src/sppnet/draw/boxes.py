"""Draw boxes and labels on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from sppnet.draw.fonts import drawn_name, font_of
from sppnet.draw.palette import Colour, class_colour, ink_on
from sppnet.errors import UserError, visible
from sppnet.structures import Detections, GroundTruth, ImageSize

DrawSource: TypeAlias = Image.Image | NDArray[np.uint8] | Tensor

_MIN_SIDE = 360  # on smaller images, labels would hide most of the content
_STRIP = (20, 20, 20)
_Rectangle: TypeAlias = tuple[int, int, int, int]


def draw_boxes(
    image: DrawSource, found: Detections | GroundTruth, threshold: float | None = None
) -> Image.Image:
    """Draw a box and a label for every object, with one colour per class.

    The label has the class name and, for detections, the score, or, for annotations, "difficult" and
    "crowd". Labels stay inside the image and avoid each other if possible. A name with characters that no
    installed font contains is replaced by its class number, such as ``#3`` (see `undrawable_names`). Line
    width and font size depend on the size of the image. Images with a longer side below 360 pixels are
    enlarged by an integer factor.

    Args:
        image: a PIL image, an RGB array uint8 ``[H, W, 3]``, or an RGB tensor float ``[3, H, W]``, 0..1.
        found: the objects of the image.
        threshold: minimum score of the detections to draw; all by default.

    Returns:
        A new RGB image.

    Raises:
        UserError: ``image`` has another type, or another size than the image of the boxes.

    Examples:
        >>> import torch
        >>> from sppnet.structures import Boxes
        >>> boxes = Boxes(torch.tensor([[10.0, 20, 300, 200]]), ImageSize(240, 400))
        >>> truth = GroundTruth.make(boxes, torch.tensor([0]), ("cat",))
        >>> draw_boxes(Image.new("RGB", (400, 240)), truth).size
        (400, 240)
    """
    canvas = as_image(image)
    size = found.boxes.size
    if canvas.size != (size.width, size.height):
        got = f"{canvas.height} x {canvas.width}"
        expected = f"the size of its boxes, {size.height} x {size.width} (height x width)"
        raise UserError("image", expected, got)
    canvas, factor = _enlarged(canvas)
    marks = _marks(found, threshold, factor)
    _draw_marks(canvas, marks)
    return canvas


def draw_labels(image: DrawSource, lines: Sequence[str]) -> Image.Image:
    """Add a strip with lines of text, such as the first-ranked classes, below the image.

    Args:
        image: a PIL image, an RGB array uint8 ``[H, W, 3]``, or an RGB tensor float ``[3, H, W]``, 0..1.
            Images with a longer side below 360 pixels are enlarged by an integer factor.
        lines: the text; each line is truncated to the width of the image.

    Returns:
        A new RGB image.

    Raises:
        UserError: ``image`` has another type.

    Examples:
        >>> draw_labels(Image.new("RGB", (400, 240)), ["cat 0.95"]).height > 240
        True
    """
    canvas, _ = _enlarged(as_image(image))
    points = _font_size(canvas) * 1.25
    fonts = [font_of(points, visible(line)) for line in lines]
    fitted = [_truncated(visible(line), font, canvas.width) for line, font in zip(lines, fonts, strict=True)]
    height = max((size[1] for _, size in fitted), default=0)
    drawn = Image.new("RGB", (canvas.width, canvas.height + height * len(fitted)), _STRIP)
    drawn.paste(canvas)
    draw = ImageDraw.Draw(drawn)
    for number, ((text, _), font) in enumerate(zip(fitted, fonts, strict=True)):
        draw.text((height / 6, canvas.height + height * (number + 0.5)), text, (255, 255, 255), font, "lm")
    return drawn


def as_image(source: DrawSource) -> Image.Image:
    """Convert an image to a new RGB PIL image.

    Args:
        source: a PIL image, an RGB array uint8 ``[H, W, 3]``, or an RGB tensor float ``[3, H, W]``, 0..1.

    Returns:
        The image.

    Raises:
        UserError: an array or tensor has another shape or dtype.

    Examples:
        >>> as_image(np.zeros((240, 400, 3), np.uint8)).size
        (400, 240)
    """
    if isinstance(source, Image.Image):
        return source.convert("RGB") if source.mode != "RGB" else source.copy()
    if isinstance(source, Tensor):
        if source.ndim == 3 and source.shape[0] == 3 and source.is_floating_point():
            levels = (source.detach().cpu().float() * 255).round().clamp(0, 255)
            return Image.fromarray(levels.permute(1, 2, 0).numpy().astype(np.uint8))
    elif source.dtype == np.uint8 and source.ndim == 3 and source.shape[2] == 3:
        return Image.fromarray(source)
    expected = "a PIL image, uint8 [H, W, 3] or float [3, H, W]"
    raise UserError("image", expected, f"{source.dtype} {list(source.shape)}")


def _enlarged(canvas: Image.Image) -> tuple[Image.Image, int]:
    """Enlarge a small image, and return the factor too."""
    factor = -(-_MIN_SIDE // max(canvas.size))
    if factor == 1:
        return canvas, 1
    return canvas.resize((canvas.width * factor, canvas.height * factor), Image.Resampling.BICUBIC), factor


def _font_size(canvas: Image.Image) -> float:
    return min(max(11.0, 0.03 * min(canvas.size)), 44.0)


@dataclass(frozen=True)
class _Mark:
    """A box to draw, its label and its colour."""

    box: tuple[float, float, float, float]
    text: str
    colour: Colour


def _marks(found: Detections | GroundTruth, threshold: float | None, factor: int) -> list[_Mark]:
    """Return the marks by priority: detections by descending score, annotations by ascending area."""
    boxes = found.boxes.clip().xyxy
    names = [drawn_name(found.names[label], label) for label in found.labels.tolist()]
    colours = [class_colour(label) for label in found.labels.tolist()]
    if isinstance(found, Detections):
        scores: list[float] = found.scores.tolist()
        texts = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
        order = sorted(range(len(found)), key=lambda i: -scores[i])
        order = [i for i in order if threshold is None or scores[i] >= threshold]
    else:
        flags = zip(names, found.difficult.tolist(), found.crowd.tolist(), strict=True)
        texts = [name + " (difficult)" * hard + " (crowd)" * crowd for name, hard, crowd in flags]
        areas: list[float] = found.boxes.areas.tolist()
        order = sorted(range(len(found)), key=lambda i: areas[i])
    corners = (boxes * factor).tolist()
    return [_Mark((*corners[i],), texts[i], colours[i]) for i in order]


def _draw_marks(canvas: Image.Image, marks: list[_Mark]) -> None:
    short = min(canvas.size)
    width = max(2, round(short / 200))
    points = _font_size(canvas)
    draw = ImageDraw.Draw(canvas)
    # The marks of the highest priority are drawn last, on top of the others.
    for mark in reversed(marks):
        _outline(draw, mark, width)
    plates: list[_Rectangle] = []
    texts: list[str] = []
    for mark in marks:
        text, size = _truncated(mark.text, font_of(points, mark.text), canvas.width)
        plates.append(_plate(mark.box, size, ImageSize(canvas.height, canvas.width), plates))
        texts.append(text)
    for mark, plate, text in reversed(list(zip(marks, plates, texts, strict=True))):
        draw.rectangle(plate, fill=mark.colour, outline=_shade(mark.colour))
        centre = (plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2
        draw.text(centre, text, ink_on(mark.colour), font_of(points, mark.text), "mm")


def _outline(draw: ImageDraw.ImageDraw, mark: _Mark, width: int) -> None:
    """Draw the box with a thin rim of the opposite lightness, which is visible on any background."""
    x0, y0 = round(mark.box[0]), round(mark.box[1])
    x1, y1 = max(round(mark.box[2]) - 1, x0), max(round(mark.box[3]) - 1, y0)
    rim = _shade(mark.colour)
    if min(x1 - x0, y1 - y0) > 4 * width:
        draw.rectangle((x0 + width, y0 + width, x1 - width, y1 - width), outline=rim)
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=rim)
    draw.rectangle((x0, y0, x1, y1), outline=mark.colour, width=width)


def _shade(colour: Colour) -> Colour:
    """Darken a light colour or lighten a dark one."""
    if ink_on(colour) == (0, 0, 0):
        return (colour[0] // 4, colour[1] // 4, colour[2] // 4)
    return (255 - (255 - colour[0]) // 4, 255 - (255 - colour[1]) // 4, 255 - (255 - colour[2]) // 4)


def _truncated(text: str, font: Any, width: int) -> tuple[str, tuple[int, int]]:
    """Truncate a text until its plate fits the width, and return width and height of the plate too."""
    ascent, descent = font.getmetrics()
    padding = max(2, round((ascent + descent) / 6))
    shown = text
    while len(shown) > 1 and font.getlength(shown) + 2 * padding > width:
        text = text[:-1]
        shown = text + "..."
        if not text:
            break
    return shown, (round(font.getlength(shown)) + 2 * padding, ascent + descent + padding // 2)


def _plate(
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    image: ImageSize,
    others: list[_Rectangle],
) -> _Rectangle:
    """Position a label plate at its box, inside the image, with the least overlap with other plates."""
    x0, y0, x1, y1 = (round(side) for side in box)
    width, height = size
    corners = [
        (x0, y0 - height),  # above the box, preferred
        (x1 - width, y0 - height),
        (x0, y1),  # below the box
        (x1 - width, y1),
        (x0, y0),  # inside the box
        (x1 - width, y0),
        (x0, y1 - height),
        (x1 - width, y1 - height),
    ]

    def clipped(left: int, top: int) -> _Rectangle:
        left = max(0, min(left, image.width - width))
        top = max(0, min(top, image.height - height))
        return left, top, left + width - 1, top + height - 1

    candidates = [clipped(*corner) for corner in corners]
    return min(candidates, key=lambda plate: sum(_intersection(plate, other) for other in others))


def _intersection(one: _Rectangle, other: _Rectangle) -> int:
    """Count the pixels that two rectangles share."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    return max(0, width) * max(0, height)

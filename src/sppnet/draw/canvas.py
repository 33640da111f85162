"""Draw boxes, labels and lines of text on PIL images; imports neither torch nor the structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image, ImageDraw

from sppnet.draw.fonts import drawn_name, font_of
from sppnet.draw.palette import Colour, class_colour, ink_on
from sppnet.errors import visible

_MIN_SIDE = 360  # on smaller images, labels would hide most of the content
_STRIP = (20, 20, 20)
_Rectangle: TypeAlias = tuple[int, int, int, int]
Corners: TypeAlias = Sequence[float]


@dataclass(frozen=True)
class Mark:
    """A box ``(x0, y0, x1, y1)`` in pixels of the image, its label and its colour."""

    box: Corners
    text: str
    colour: Colour


def detection_marks(
    boxes: Sequence[Corners], labels: Sequence[int], scores: Sequence[float], names: Sequence[str]
) -> list[Mark]:
    """Return the marks of detections, by descending score."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [
        Mark(
            boxes[i],
            f"{drawn_name(names[labels[i]], labels[i])} {scores[i]:.2f}",
            class_colour(labels[i]),
        )
        for i in order
    ]


def class_lines(labels: Sequence[int], scores: Sequence[float], names: Sequence[str]) -> list[str]:
    """Return a line of text for each of the three most probable classes."""
    return [
        f"{drawn_name(names[label], label)} {score:.2f}"
        for label, score in zip(labels[:3], scores[:3], strict=True)
    ]


def draw_marks(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """Draw boxes and labels on a copy of an image; of overlapping ones the first mark is on top.

    Images with a longer side below 360 pixels are enlarged by an integer factor.
    """
    canvas, factor = enlarged(image)
    scaled = [Mark([side * factor for side in mark.box], mark.text, mark.colour) for mark in marks]
    _draw(canvas, scaled)
    return canvas


def draw_lines(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """Add a strip with lines of text, truncated to the width, below a copy of an image."""
    canvas, _ = enlarged(image)
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


def enlarged(image: Image.Image) -> tuple[Image.Image, int]:
    """Return a copy of an image, enlarged if it is small, and the factor."""
    factor = -(-_MIN_SIDE // max(image.size))
    if factor == 1:
        return image.copy(), 1
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC), factor


def _font_size(canvas: Image.Image) -> float:
    return min(max(11.0, 0.03 * min(canvas.size)), 44.0)


def _draw(canvas: Image.Image, marks: Sequence[Mark]) -> None:
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
        plates.append(_plate(mark.box, size, canvas.size, plates))
        texts.append(text)
    for mark, plate, text in reversed(list(zip(marks, plates, texts, strict=True))):
        draw.rectangle(plate, fill=mark.colour, outline=_shade(mark.colour))
        centre = (plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2
        draw.text(centre, text, ink_on(mark.colour), font_of(points, mark.text), "mm")


def _outline(draw: ImageDraw.ImageDraw, mark: Mark, width: int) -> None:
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
    box: Corners,
    size: tuple[int, int],
    image: tuple[int, int],
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
        left = max(0, min(left, image[0] - width))
        top = max(0, min(top, image[1] - height))
        return left, top, left + width - 1, top + height - 1

    candidates = [clipped(*corner) for corner in corners]
    return min(candidates, key=lambda plate: sum(_intersection(plate, other) for other in others))


def _intersection(one: _Rectangle, other: _Rectangle) -> int:
    """Count the pixels that two rectangles share."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    return max(0, width) * max(0, height)

"""Boxes and their names on images."""

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

_LEAST_SIDE = 360  # below this, names would hide an image
_STRIP = (20, 20, 20)
_Rectangle: TypeAlias = tuple[int, int, int, int]


def draw_boxes(
    image: DrawSource, found: Detections | GroundTruth, threshold: float | None = None
) -> Image.Image:
    """The image with a box and a name for every object, one colour a class.

    A name of letters that no installed font has is drawn as its class number, ``#3`` (`undrawable_names`).
    Names stand inside the image, clear of each other where there is room, on a plate of the class's
    colour; detections add their score, annotations what they are (difficult, crowd). Lines and letters
    follow the size of the image; one whose longer side is below 360 pixels is enlarged by a whole factor.

    Args:
        image: a PIL image, uint8 ``[H, W, 3]`` in RGB, or float ``[3, H, W]``, RGB, 0..1.
        found: the objects of this image.
        threshold: detections with a lower score are left out.

    Returns:
        An RGB image; ``image`` itself is left as it is.

    Raises:
        UserError: an image of another kind or size than the boxes are on.
    """
    canvas = as_image(image)
    size = found.boxes.size
    if canvas.size != (size.width, size.height):
        got = f"{canvas.height} x {canvas.width}"
        raise UserError("image", f"the {size.height} x {size.width} (height x width) of its boxes", got)
    canvas, factor = _enlarged(canvas)
    marks = _marks(found, threshold, factor)
    _draw_marks(canvas, marks)
    return canvas


def draw_labels(image: DrawSource, lines: Sequence[str]) -> Image.Image:
    """The image with lines of text, the top classes say, on a strip below it, so that none is hidden.

    Args:
        image: a PIL image, uint8 ``[H, W, 3]`` in RGB, or float ``[3, H, W]``, RGB, 0..1; one whose
            longer side is below 360 pixels is enlarged by a whole factor.
        lines: the text, each line shortened to the image's width.

    Raises:
        UserError: an image of another kind.
    """
    canvas, _ = _enlarged(as_image(image))
    points = _letters(canvas) * 1.25
    fonts = [font_of(points, visible(line)) for line in lines]
    fitted = [_fitted(visible(line), font, canvas.width) for line, font in zip(lines, fonts, strict=True)]
    high = max((size[1] for _, size in fitted), default=0)
    drawn = Image.new("RGB", (canvas.width, canvas.height + high * len(fitted)), _STRIP)
    drawn.paste(canvas)
    draw = ImageDraw.Draw(drawn)
    for number, ((text, _), font) in enumerate(zip(fitted, fonts, strict=True)):
        draw.text((high / 6, canvas.height + high * (number + 0.5)), text, (255, 255, 255), font, "lm")
    return drawn


def as_image(source: DrawSource) -> Image.Image:
    """A new RGB image of a PIL image, uint8 ``[H, W, 3]`` or float ``[3, H, W]`` 0..1.

    Raises:
        UserError: an array or tensor of another shape or type.
    """
    if isinstance(source, Image.Image):
        return source.convert("RGB") if source.mode != "RGB" else source.copy()
    if isinstance(source, Tensor):
        if source.ndim == 3 and source.shape[0] == 3 and source.is_floating_point():
            levels = (source.detach().cpu().float() * 255).round().clamp(0, 255)
            return Image.fromarray(levels.permute(1, 2, 0).numpy().astype(np.uint8))
    elif source.dtype == np.uint8 and source.ndim == 3 and source.shape[2] == 3:
        return Image.fromarray(source)
    wanted = "a PIL image, uint8 [H, W, 3] or float [3, H, W]"
    raise UserError("image", wanted, f"{source.dtype} {list(source.shape)}")


def _enlarged(canvas: Image.Image) -> tuple[Image.Image, int]:
    factor = -(-_LEAST_SIDE // max(canvas.size))
    if factor == 1:
        return canvas, 1
    return canvas.resize((canvas.width * factor, canvas.height * factor), Image.Resampling.BICUBIC), factor


def _letters(canvas: Image.Image) -> float:
    return min(max(11.0, 0.03 * min(canvas.size)), 44.0)


@dataclass(frozen=True)
class _Mark:
    box: tuple[float, float, float, float]
    text: str
    colour: Colour


def _marks(found: Detections | GroundTruth, threshold: float | None, factor: int) -> list[_Mark]:
    """What to draw, most important first: by score, or small before large."""
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
    points = _letters(canvas)
    draw = ImageDraw.Draw(canvas)
    # The most important ones last, on top of the others.
    for mark in reversed(marks):
        _outline(draw, mark, width)
    plates: list[_Rectangle] = []
    texts: list[str] = []
    for mark in marks:
        text, (wide, high) = _fitted(mark.text, font_of(points, mark.text), canvas.width)
        plates.append(_place(mark.box, (wide, high), ImageSize(canvas.height, canvas.width), plates))
        texts.append(text)
    for mark, plate, text in reversed(list(zip(marks, plates, texts, strict=True))):
        draw.rectangle(plate, fill=mark.colour, outline=_shade(mark.colour))
        middle = (plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2
        draw.text(middle, text, ink_on(mark.colour), font_of(points, mark.text), "mm")


def _outline(draw: ImageDraw.ImageDraw, mark: _Mark, width: int) -> None:
    """A line on the box's edge, with a thin rim of the opposite lightness, so that it shows on any ground."""
    x0, y0 = round(mark.box[0]), round(mark.box[1])
    x1, y1 = max(round(mark.box[2]) - 1, x0), max(round(mark.box[3]) - 1, y0)
    rim = _shade(mark.colour)
    if min(x1 - x0, y1 - y0) > 4 * width:
        draw.rectangle((x0 + width, y0 + width, x1 - width, y1 - width), outline=rim)
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=rim)
    draw.rectangle((x0, y0, x1, y1), outline=mark.colour, width=width)


def _shade(colour: Colour) -> Colour:
    if ink_on(colour) == (0, 0, 0):
        return (colour[0] // 4, colour[1] // 4, colour[2] // 4)
    return (255 - (255 - colour[0]) // 4, 255 - (255 - colour[1]) // 4, 255 - (255 - colour[2]) // 4)


def _fitted(text: str, font: Any, most: int) -> tuple[str, tuple[int, int]]:
    """The text, shortened until its plate fits the image's width, and the width and height of the plate."""
    up, down = font.getmetrics()
    margin = max(2, round((up + down) / 6))
    shown = text
    while len(shown) > 1 and font.getlength(shown) + 2 * margin > most:
        text = text[:-1]
        shown = text + "..."
        if not text:
            break
    return shown, (round(font.getlength(shown)) + 2 * margin, up + down + margin // 2)


def _place(
    box: tuple[float, float, float, float],
    plate: tuple[int, int],
    image: ImageSize,
    taken: list[_Rectangle],
) -> _Rectangle:
    """The best of the places for a plate: inside the image, and over as little of the others as can be."""
    x0, y0, x1, y1 = (round(side) for side in box)
    wide, high = plate
    corners = [
        (x0, y0 - high),  # on the box, its usual place
        (x1 - wide, y0 - high),
        (x0, y1),  # below it
        (x1 - wide, y1),
        (x0, y0),  # inside it
        (x1 - wide, y0),
        (x0, y1 - high),
        (x1 - wide, y1 - high),
    ]

    def settled(left: int, top: int) -> _Rectangle:
        left = max(0, min(left, image.width - wide))
        top = max(0, min(top, image.height - high))
        return left, top, left + wide - 1, top + high - 1

    places = [settled(*corner) for corner in corners]
    return min(places, key=lambda place: sum(_shared(place, other) for other in taken))


def _shared(one: _Rectangle, other: _Rectangle) -> int:
    across = min(one[2], other[2]) - max(one[0], other[0]) + 1
    down = min(one[3], other[3]) - max(one[1], other[1]) + 1
    return max(0, across) * max(0, down)

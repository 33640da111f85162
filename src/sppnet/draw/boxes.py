"""Draw boxes and labels of the structures on images of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sppnet.draw.canvas import Mark, detection_marks, draw_lines, draw_marks
from sppnet.draw.fonts import drawn_name
from sppnet.draw.palette import class_colour
from sppnet.errors import UserError
from sppnet.structures import Detections, GroundTruth

DrawSource: TypeAlias = Image.Image | NDArray[np.uint8] | Tensor


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
        >>> from sppnet.structures import Boxes, ImageSize
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
    return draw_marks(canvas, _marks(found, threshold))


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
    return draw_lines(as_image(image), lines)


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


def _marks(found: Detections | GroundTruth, threshold: float | None) -> list[Mark]:
    """Return the marks by priority: detections by descending score, annotations by ascending area."""
    corners: list[list[float]] = found.boxes.clip().xyxy.tolist()
    labels: list[int] = found.labels.tolist()
    if isinstance(found, Detections):
        scores: list[float] = found.scores.tolist()
        shown = [i for i, score in enumerate(scores) if threshold is None or score >= threshold]
        return detection_marks(
            [corners[i] for i in shown],
            [labels[i] for i in shown],
            [scores[i] for i in shown],
            found.names,
        )
    flags = zip(labels, found.difficult.tolist(), found.crowd.tolist(), strict=True)
    texts = [
        drawn_name(found.names[label], label) + " (difficult)" * hard + " (crowd)" * crowd
        for label, hard, crowd in flags
    ]
    areas: list[float] = found.boxes.areas.tolist()
    order = sorted(range(len(found)), key=lambda i: areas[i])
    return [Mark(corners[i], texts[i], class_colour(labels[i])) for i in order]

"""Results of `sppnet.runtime.Runtime.predict`, with NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet._records import classification_record, detection_record
from sppnet.draw.canvas import class_lines, detection_marks, draw_lines, draw_marks
from sppnet.errors import UserError
from sppnet.runtime.images import ImageSource, read_pixels
from sppnet.saving import DrawnResult

_LARGEST_DRAWN = 16_000_000  # pixels; a larger image is reduced before it is drawn


class _Result(DrawnResult):
    """What both results share: drawing and saving."""

    source: ImageSource | None
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def _image(self) -> tuple[Image.Image, float]:
        """Return the image to draw on, and the factor by which it was reduced."""
        if self.source is None:
            raise UserError("plot", "a result that knows its image", "one without a source")
        image = Image.fromarray(read_pixels(self.source))
        factor = (_LARGEST_DRAWN / (image.width * image.height)) ** 0.5
        if factor >= 1:
            return image, 1.0
        return image.resize((max(1, int(image.width * factor)), max(1, int(image.height * factor)))), factor


@dataclass(frozen=True, eq=False)
class DetectionResult(_Result):
    """The detections of one image, by descending probability.

    Attributes:
        boxes: float32 ``[N, 4]``, ``(x0, y0, x1, y1)`` in pixels of the image.
        scores: float32 ``[N]``, probabilities, descending.
        labels: int64 ``[N]``, indices into ``names``.
        names: the detector's classes.
        height: the height of the image in pixels.
        width: the width of the image in pixels.
        source: the image as it was given, for `plot`.

    Examples:
        >>> box = np.array([[0, 0, 4, 2.5]], np.float32)
        >>> found = DetectionResult(box, np.array([0.75], np.float32), np.array([0]), ("cat",), 5, 6)
        >>> found.to_dict()["detections"]
        [{'box': [0.0, 0.0, 4.0, 2.5], 'score': 0.75, 'label': 0, 'name': 'cat'}]
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    height: int
    width: int
    source: ImageSource | None = None

    def to_dict(self) -> dict[str, object]:
        """Return ``{"height", "width", "detections": [{"box", "score", "label", "name"}]}`` in JSON types."""
        size = self.height, self.width
        columns = self.boxes.tolist(), self.scores.tolist(), self.labels.tolist()
        return detection_record(size, *columns, self.names)

    def plot(self) -> Image.Image:
        """Return the image with the boxes drawn on it; one of more than 16 megapixels is reduced."""
        image, factor = self._image()
        limits = np.array([image.width, image.height] * 2, np.float32)
        boxes: list[list[float]] = np.clip(self.boxes * factor, 0, limits).tolist()
        return draw_marks(
            image, detection_marks(boxes, self.labels.tolist(), self.scores.tolist(), self.names)
        )


@dataclass(frozen=True, eq=False)
class ClassificationResult(_Result):
    """The most probable classes of one image.

    Attributes:
        labels: int64 ``[N]``, indices into ``names``.
        scores: float32 ``[N]``, probabilities, descending.
        names: the classifier's classes.
        source: the image as it was given, for `plot`.

    Examples:
        >>> ClassificationResult.top(np.array([0.2, 0.8], np.float32), ("cat", "dog"), None).name
        'dog'
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    names: tuple[str, ...]
    source: ImageSource | None = None

    @classmethod
    def top(
        cls,
        probabilities: NDArray[np.float32],
        names: tuple[str, ...],
        threshold: float | None,
        source: ImageSource | None = None,
    ) -> ClassificationResult:
        """Select the classes of at least ``threshold`` from probabilities ``[K]``; the top five when None."""
        order = np.argsort(-probabilities, kind="stable").astype(np.int64)
        order = order[:5] if threshold is None else order[probabilities[order] >= threshold]
        return cls(order, probabilities[order], names, source)

    @property
    def name(self) -> str:
        """The most probable class; empty if all are below the threshold."""
        return self.names[int(self.labels[0])] if len(self.labels) else ""

    def to_dict(self) -> dict[str, object]:
        """Return ``{"classes": [{"label", "name", "score"}]}`` in JSON types."""
        return classification_record(self.labels.tolist(), self.scores.tolist(), self.names)

    def plot(self) -> Image.Image:
        """Return the image with its three most probable classes below it."""
        image, _ = self._image()
        return draw_lines(image, class_lines(self.labels.tolist(), self.scores.tolist(), self.names))

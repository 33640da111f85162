"""Results of `sppnet.runtime.Runtime.predict`, with NumPy arrays."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sppnet._records import classification_record, detection_record
from sppnet.files import make_folder, write_text


@dataclass(frozen=True, eq=False)
class DetectionResult:
    """The detections of one image, by descending probability.

    Attributes:
        boxes: float32 ``[N, 4]``, ``(x0, y0, x1, y1)`` in pixels of the image.
        scores: float32 ``[N]``, probabilities, descending.
        labels: int64 ``[N]``, indices into ``names``.
        names: the detector's classes.
        height: the height of the image in pixels.
        width: the width of the image in pixels.

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

    def __len__(self) -> int:
        return len(self.scores)

    def to_dict(self) -> dict[str, object]:
        """Return ``{"height", "width", "detections": [{"box", "score", "label", "name"}]}`` in JSON types."""
        size = self.height, self.width
        columns = self.boxes.tolist(), self.scores.tolist(), self.labels.tolist()
        return detection_record(size, *columns, self.names)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the content of `to_dict` as JSON and return the path."""
        return _write(self.to_dict(), path)


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """The most probable classes of one image.

    Attributes:
        labels: int64 ``[N]``, indices into ``names``.
        scores: float32 ``[N]``, probabilities, descending.
        names: the classifier's classes.

    Examples:
        >>> ClassificationResult.top(np.array([0.2, 0.8], np.float32), ("cat", "dog"), None).name
        'dog'
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    names: tuple[str, ...]

    @classmethod
    def top(
        cls, probabilities: NDArray[np.float32], names: tuple[str, ...], threshold: float | None
    ) -> ClassificationResult:
        """Select the classes of at least ``threshold`` from probabilities ``[K]``; the top five when None."""
        order = np.argsort(-probabilities, kind="stable").astype(np.int64)
        order = order[:5] if threshold is None else order[probabilities[order] >= threshold]
        return cls(order, probabilities[order], names)

    @property
    def name(self) -> str:
        """The most probable class; empty if all are below the threshold."""
        return self.names[int(self.labels[0])] if len(self.labels) else ""

    def to_dict(self) -> dict[str, object]:
        """Return ``{"classes": [{"label", "name", "score"}]}`` in JSON types."""
        return classification_record(self.labels.tolist(), self.scores.tolist(), self.names)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the content of `to_dict` as JSON and return the path."""
        return _write(self.to_dict(), path)


def _write(document: dict[str, object], path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    make_folder(target.parent)
    write_text(target, json.dumps(document, indent=2))
    return target

"""What `sppnet.runtime.Runtime.predict` returns: the results of the estimators as NumPy arrays."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class DetectionResult:
    """The detections of one image, best first.

    Attributes:
        boxes: float32 ``[N, 4]``, ``(x0, y0, x1, y1)`` in pixels of the image.
        scores: float32 ``[N]``, probabilities, descending.
        labels: int64 ``[N]``, positions in ``names``.
        names: the detector's classes.
        height: of the image in pixels.
        width: of the image in pixels.

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
        """``{"height", "width", "detections": [{"box", "score", "label", "name"}]}``, as JSON takes it."""
        columns = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        found = [
            {
                "box": [round(v, 2) for v in box],
                "score": round(score, 4),
                "label": label,
                "name": self.names[label],
            }
            for box, score, label in columns
        ]
        return {"height": self.height, "width": self.width, "detections": found}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as JSON; returns the path."""
        return _write(self.to_dict(), path)


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """The classes of one image, top first.

    Attributes:
        labels: int64 ``[n]``, positions in ``names``.
        scores: float32 ``[n]``, probabilities, descending.
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
        """From the probabilities ``[K]`` of all classes those of at least ``threshold``; five when None."""
        order = np.argsort(-probabilities, kind="stable").astype(np.int64)
        order = order[:5] if threshold is None else order[probabilities[order] >= threshold]
        return cls(order, probabilities[order], names)

    @property
    def name(self) -> str:
        """The top class; empty where all were below the threshold."""
        return self.names[int(self.labels[0])] if len(self.labels) else ""

    def to_dict(self) -> dict[str, object]:
        """``{"classes": [{"label", "name", "score"}]}``, as JSON takes it."""
        pairs = zip(self.labels.tolist(), self.scores.tolist(), strict=True)
        classes: list[dict[str, Any]] = [
            {"label": label, "name": self.names[label], "score": round(score, 4)} for label, score in pairs
        ]
        return {"classes": classes}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as JSON; returns the path."""
        return _write(self.to_dict(), path)


def _write(document: dict[str, object], path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".part-{target.name}")
    part.write_text(json.dumps(document, indent=2), encoding="utf-8")
    os.replace(part, target)
    return target

"""What `Detector.predict` returns for an image."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from sppnet.data import ImageSource, read_pixels
from sppnet.files import make_folder, write_text
from sppnet.structures import Detections

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class DetectionResult:
    """The detections of one image, best first.

    Attributes:
        detections: boxes, scores, labels and names together.
        source: the image as it was given.
    """

    detections: Detections
    source: ImageSource

    @property
    def boxes(self) -> Tensor:
        """float32 ``[N, 4]``, ``(x0, y0, x1, y1)`` in pixels of the image."""
        return self.detections.boxes.xyxy

    @property
    def scores(self) -> Tensor:
        """float32 ``[N]``, probabilities, descending."""
        return self.detections.scores

    @property
    def labels(self) -> Tensor:
        """int64 ``[N]``, positions in ``names``."""
        return self.detections.labels

    @property
    def names(self) -> tuple[str, ...]:
        """The detector's classes."""
        return self.detections.names

    def __len__(self) -> int:
        return len(self.detections)

    def plot(self) -> Image:
        """The image with the boxes drawn on it."""
        from sppnet.draw import draw_boxes

        return draw_boxes(read_pixels(self.source), self.detections)

    def to_dict(self) -> dict[str, object]:
        """``{"height", "width", "detections": [{"box", "score", "label", "name"}]}``, as JSON takes it."""
        size = self.detections.boxes.size
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
        return {"height": size.height, "width": size.width, "detections": found}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawn image or, where the path ends in ``.json``, `to_dict`; returns the path."""
        from sppnet.draw import save_image

        target = Path(path)
        if target.suffix.lower() == ".json":
            make_folder(target.parent)
            write_text(target, json.dumps(self.to_dict(), indent=2))
        else:
            save_image(target, self.plot())
        return target

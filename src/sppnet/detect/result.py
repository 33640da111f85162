"""What `Detector.predict` returns for an image."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from sppnet.data import ImageSource, image_id_of_name
from sppnet.data.images import read_scaled_pixels
from sppnet.data.writers import coco_rows
from sppnet.errors import UserError
from sppnet.saving import save_result
from sppnet.structures import Boxes, Detections, ImageSize

if TYPE_CHECKING:
    from PIL.Image import Image

_DRAWN_SIDE = 1024


@dataclass(frozen=True)
class DetectionResult:
    """The detections of one image, best first.

    Attributes:
        detections: boxes, scores, labels and names together.
        source: the image as it was given.
        category_ids: the training data's own number of each class; None counts from 1.
        error: always None; a `sppnet.estimators.FailedPrediction` has one.

    Examples:
        >>> import numpy as np
        >>> image = np.zeros((20, 30, 3), np.uint8)
        >>> found = Detections.empty(ImageSize(20, 30), ("cat", "dog"))
        >>> DetectionResult(found, image).to_dict()
        {'height': 20, 'width': 30, 'detections': []}
    """

    detections: Detections
    source: ImageSource
    category_ids: tuple[int | str, ...] | None = None
    error: ClassVar[None] = None

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
        """The image with the boxes drawn on it; one of more than 16 megapixels is shrunk."""
        from sppnet.draw import draw_boxes

        pixels, size = read_scaled_pixels(self.source, _drawn_size)
        height, width = pixels.shape[:2]
        found = self.detections
        if (height, width) != (size.height, size.width):
            scales = found.boxes.xyxy.new_tensor([width / size.width, height / size.height] * 2)
            boxes = Boxes(found.boxes.xyxy * scales, ImageSize(height, width))
            found = replace(found, boxes=boxes)
        return draw_boxes(pixels, found)

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

    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, object]]:
        """COCO results, one ``{"image_id", "category_id", "bbox", "score"}`` per detection.

        Args:
            image_id: the data set's id of the image. None takes the file's name without ending, as a number
                where it is one; an image in memory needs an id.

        Raises:
            UserError: an image in memory without an id.

        Examples:
            >>> found = Detections.empty(ImageSize(20, 30), ("cat",))
            >>> DetectionResult(found, "000012.jpg").to_coco()
            []
        """
        if image_id is None:
            if not isinstance(self.source, (str, os.PathLike)):
                raise UserError("image_id", "the id of an image in memory", "none")
            image_id = image_id_of_name(self.source)
        return coco_rows(self.detections, image_id, self.category_ids)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawn image or, where the path ends in ``.json``, `to_dict`; returns the path.

        Raises:
            UserError: the path is the image itself, has no ending of an image, or cannot be written.
        """
        return save_result(path, self.source, self.plot, self.to_dict)


def _drawn_size(size: ImageSize) -> ImageSize:
    """A large image is drawn with sides of at least twice this."""
    return ImageSize(min(size.height, _DRAWN_SIDE), min(size.width, _DRAWN_SIDE))

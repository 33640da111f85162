"""The result of `Detector.predict` for an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from torch import Tensor

from sppnet._records import detection_record
from sppnet.data import ImageSource, Pixels
from sppnet.data.images import read_scaled_pixels
from sppnet.data.writers import coco_rows
from sppnet.estimators.results import PredictionResult, drawn_size, optional_module
from sppnet.structures import Boxes, DetectionItem, Detections, GroundTruth, ImageSize

if TYPE_CHECKING:
    from PIL.Image import Image

Objects = TypeVar("Objects", Detections, GroundTruth)


@dataclass(frozen=True, eq=False)
class DetectionResult(PredictionResult):
    """The detections of one image, best first; ``N`` is their number.

    Results support slices, indices, masks, iteration, comparison with ``==`` and merging with ``+``.

    Attributes:
        detections: boxes, scores, labels and names.
        source: the image as it was given.
        category_ids: number of each class in the training data; None for numbers from 1.
        error: always None; a `sppnet.estimators.FailedPrediction` has one.

    Examples:
        >>> import numpy as np
        >>> image = np.zeros((20, 30, 3), np.uint8)
        >>> found = Detections.empty(ImageSize(20, 30), ("cat", "dog"))
        >>> DetectionResult(found, image).to_dict()
        {'height': 20, 'width': 30, 'detections': []}
        >>> boxes = Boxes(torch.tensor([[1.0, 2.0, 5.0, 9.0], [0.0, 0.0, 8.0, 8.0]]), ImageSize(20, 30))
        >>> found = Detections(boxes, torch.tensor([0.9, 0.4]), torch.tensor([1, 0]), ("cat", "dog"))
        >>> result = DetectionResult(found, image)
        >>> len(result), len(result[result.scores > 0.5]), result[:1] + result[1:] == result
        (2, 1, True)
    """

    entries: ClassVar[str] = "detections"

    detections: Detections
    source: ImageSource
    category_ids: tuple[int | str, ...] | None = None

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
        """int64 ``[N]``, indices into ``names``."""
        return self.detections.labels

    @property
    def names(self) -> tuple[str, ...]:
        """The class names of the detector."""
        return self.detections.names

    def _replaced(self, columns: Mapping[str, Tensor]) -> Self:
        boxes = Boxes(columns["boxes"], self.detections.boxes.size)
        found = Detections(boxes, columns["scores"], columns["labels"], self.names)
        return replace(self, detections=found)

    def _columns(self) -> dict[str, Tensor]:
        return {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}

    def _context(self) -> tuple[object, ...]:
        return self.names, self.category_ids, self.detections.boxes.size

    def plot(self) -> Image:
        """Draw the boxes on the image; images of more than 16 megapixels are reduced."""
        from sppnet.draw import draw_boxes

        pixels, size = read_scaled_pixels(self.source, drawn_size)
        return draw_boxes(pixels, _on_drawn(self.detections, pixels, size))

    def to_dict(self) -> dict[str, object]:
        """Return ``{"height", "width", "detections": [{"box", "score", "label", "name"}]}`` for JSON."""
        size = self.detections.boxes.size
        columns = self.boxes.tolist(), self.scores.tolist(), self.labels.tolist()
        return detection_record((size.height, size.width), *columns, self.names)

    def to_record(self) -> dict[str, object]:
        """Return `to_dict` and, as ``exact``, unrounded boxes and scores."""
        exact = {"boxes": self.boxes.tolist(), "scores": self.scores.tolist()}
        return {**self.to_dict(), "exact": exact}

    def report_image(self, item: DetectionItem, names: Sequence[str]) -> tuple[Image, str]:
        """Draw annotated boxes, left, and detections, right; return the file name as caption too."""
        from sppnet.draw import draw_comparison

        pixels, size = read_scaled_pixels(item.path, drawn_size)
        truth, found = _on_drawn(item.truth, pixels, size), _on_drawn(self.detections, pixels, size)
        return draw_comparison(pixels, truth, found), item.path.name

    def to_supervision(self) -> Any:
        """Return a ``supervision.Detections`` with the class names in ``data["class_name"]``.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        supervision = optional_module("supervision", "supervision", "results for supervision")
        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array([self.names[label] for label in self.labels.tolist()], dtype=str)},
        )

    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, object]]:
        """Return COCO results, one ``{"image_id", "category_id", "bbox", "score"}`` per detection.

        Args:
            image_id: id of the image in the data set. None for the file name without suffix, as a number if
                it is one; an image in memory requires an id.

        Raises:
            UserError: the image is in memory and has no id.

        Examples:
            >>> found = Detections.empty(ImageSize(20, 30), ("cat",))
            >>> DetectionResult(found, "000012.jpg").to_coco()
            []
        """
        return coco_rows(self.detections, self._image_id(image_id), self.category_ids)


def _on_drawn(objects: Objects, pixels: Pixels, size: ImageSize) -> Objects:
    """Scale objects from the size of an image to that of its pixels, which may be reduced."""
    height, width = pixels.shape[:2]
    if (height, width) == (size.height, size.width):
        return objects
    scales = objects.boxes.xyxy.new_tensor([width / size.width, height / size.height] * 2)
    return replace(objects, boxes=Boxes(objects.boxes.xyxy * scales, ImageSize(height, width)))

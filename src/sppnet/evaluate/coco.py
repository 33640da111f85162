"""Average precision and average recall by the rules of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.evaluate.pairs import paired_names
from sppnet.structures import Boxes, Detections, GroundTruth

# COCO ignores objects whose area is outside the evaluated range; the widest range ends at 1e10.
_AREA_OUTSIDE_EVERY_RANGE = 1e12
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)


@dataclass(frozen=True)
class CocoClass:
    """AP of one class, 0..1; None if the class has no objects.

    Attributes:
        ap: mean over IoU thresholds 0.50, 0.55, ..., 0.95.
        ap50: AP at an IoU of 0.50.
        ap75: AP at an IoU of 0.75.

    Examples:
        >>> CocoClass(ap=0.4, ap50=0.7, ap75=0.3).ap50
        0.7
    """

    ap: float | None
    ap50: float | None
    ap75: float | None


@dataclass(frozen=True)
class CocoScores:
    """AP and AR, 0..1, as means over the classes with objects; None if there are no objects.

    Attributes:
        ap: mean over IoU thresholds 0.50, 0.55, ..., 0.95.
        ap50: AP at an IoU of 0.50.
        ap75: AP at an IoU of 0.75.
        ap_small: ``ap`` of objects of less than 32 * 32 pixels.
        ap_medium: ``ap`` of objects of 32 * 32 to 96 * 96 pixels.
        ap_large: ``ap`` of objects of more than 96 * 96 pixels.
        ar1: maximum recall with one detection per class and image, mean over the IoU thresholds.
        ar10: the same with ten detections per class and image.
        ar100: the same with a hundred detections per class and image.
        per_class: one entry per class, in the order of ``names``.

    Examples:
        >>> import torch
        >>> from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize
        >>> box = Boxes(torch.tensor([[10.0, 10, 60, 60]]), ImageSize(100, 100))
        >>> truth = GroundTruth.make(box, torch.tensor([0]), ("cat",))
        >>> found = Detections(box, torch.tensor([0.9]), torch.tensor([0]), ("cat",))
        >>> coco_scores([found], [truth]).per_class
        (CocoClass(ap=1.0, ap50=1.0, ap75=1.0),)
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    per_class: tuple[CocoClass, ...]


def coco_scores(detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> CocoScores:
    """Compute COCO's AP and AR of boxes, with at most 100 detections per class and image.

    A crowd matches any number of detections, which are then ignored. A difficult object is ignored like an
    object outside an area range in COCO: neither it nor the one detection that matches it counts. Areas
    are areas of boxes; COCO's own evaluation uses areas of masks.

    Args:
        detections: one per image.
        truths: the objects of the same images, with the same class names.

    Returns:
        The scores, over all classes and per class.

    Raises:
        UserError: detections and truths differ in length or class names, or a score is not finite.

    Examples:
        >>> import torch
        >>> from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize
        >>> box = Boxes(torch.tensor([[10.0, 10, 60, 60]]), ImageSize(100, 100))
        >>> truth = GroundTruth.make(box, torch.tensor([0]), ("cat",))
        >>> coco_scores([Detections.empty(box.size, ("cat",))], [truth]).ap
        0.0
    """
    names = paired_names(detections, truths)
    objects, found = _objects(truths), _found(detections)
    # One class at a time, because mappings of all annotations take much memory.
    results = [_evaluate(truths, objects.of(label), found.of(label)) for label in range(len(names))]
    # Axes: thresholds, recalls, classes, areas; and thresholds, classes, areas, limits.
    precision = np.concatenate([result[0] for result in results], 2)[..., -1]
    recall = np.concatenate([result[1] for result in results], 1)
    return CocoScores(
        ap=_mean(precision[..., _ALL]),
        ap50=_mean(precision[0, ..., _ALL]),
        ap75=_mean(precision[5, ..., _ALL]),
        ap_small=_mean(precision[..., _SMALL]),
        ap_medium=_mean(precision[..., _MEDIUM]),
        ap_large=_mean(precision[..., _LARGE]),
        ar1=_mean(recall[..., _ALL, 0]),
        ar10=_mean(recall[..., _ALL, 1]),
        ar100=_mean(recall[..., _ALL, 2]),
        per_class=tuple(_of_class(precision[:, :, number, _ALL]) for number in range(len(names))),
    )


def _of_class(precision: NDArray[np.float64]) -> CocoClass:
    return CocoClass(_mean(precision), _mean(precision[0]), _mean(precision[5]))


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


@dataclass(frozen=True)
class _Annotations:
    """Boxes of all images, as columns.

    Attributes:
        images: image numbers from 1 ``[M]``.
        labels: class numbers ``[M]``.
        boxes: top left corners, widths and heights ``[M, 4]``.
        areas: ``[M]``.
        crowds: ``[M]``.
        scores: ``[M]``.
    """

    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    scores: NDArray[np.float64]

    def of(self, label: int) -> list[dict[str, Any]]:
        """Select one class in COCO's format, with ids from 1: id 0 stands for no match in COCO's code."""
        own = self.labels == label
        columns = (self.images, self.boxes, self.areas, self.crowds, self.scores)
        rows = zip(*(column[own].tolist() for column in columns), strict=True)
        return [
            {
                "id": number,
                "image_id": image,
                "category_id": 1,
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
                "score": score,
            }
            for number, (image, box, area, crowd, score) in enumerate(rows, 1)
        ]


def _evaluate(
    truths: Sequence[GroundTruth], objects: list[dict[str, Any]], found: list[dict[str, Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute precision and recall of one class; -1 if the class has no objects."""
    from faster_coco_eval import COCO, COCOeval_faster

    frame: dict[str, Any] = {
        "images": [
            {"id": number, "height": truth.boxes.size.height, "width": truth.boxes.size.width}
            for number, truth in enumerate(truths, 1)
        ],
        "categories": [{"id": 1, "name": "object"}],
    }
    evaluation = COCOeval_faster(
        COCO({**frame, "annotations": objects}), COCO({**frame, "annotations": found}), "bbox"
    )
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


def _objects(truths: Sequence[GroundTruth]) -> _Annotations:
    images, boxes = _images_and_boxes([truth.boxes for truth in truths])
    difficult = _concatenate([truth.difficult for truth in truths])
    labels = _concatenate([truth.labels for truth in truths])
    areas = np.where(difficult, _AREA_OUTSIDE_EVERY_RANGE, boxes[:, 2] * boxes[:, 3])
    crowds = _concatenate([truth.crowd for truth in truths])
    return _Annotations(images, labels, boxes, areas, crowds, np.ones(len(boxes)))


def _found(detections: Sequence[Detections]) -> _Annotations:
    images, boxes = _images_and_boxes([found.boxes for found in detections])
    labels = _concatenate([found.labels for found in detections])
    scores = _concatenate([found.scores for found in detections]).astype(np.float64)
    crowds = np.zeros(len(boxes), dtype=np.bool_)
    return _Annotations(images, labels, boxes, boxes[:, 2] * boxes[:, 3], crowds, scores)


def _images_and_boxes(per_image: Sequence[Boxes]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the image number of each box, from 1, and corners, widths and heights ``[M, 4]``."""
    xyxy = _concatenate([boxes.xyxy for boxes in per_image]).astype(np.float64)
    images = np.repeat(np.arange(1, len(per_image) + 1), [len(boxes) for boxes in per_image])
    return images, np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], 1)


def _concatenate(tensors: Sequence[Tensor]) -> NDArray[Any]:
    return torch.cat([tensor.detach().cpu() for tensor in tensors]).numpy()

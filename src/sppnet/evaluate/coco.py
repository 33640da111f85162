"""Average precision and recall by the rules of COCO."""

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

# COCO ignores an object whose area lies outside the range that it looks at; its widest ends at 1e10.
_AREA_OUTSIDE_EVERY_RANGE = 1e12
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)


@dataclass(frozen=True)
class CocoClass:
    """COCO's numbers for one class, 0..1; None where it has no objects that count.

    Attributes:
        ap: mean over IoU thresholds 0.50, 0.55, ..., 0.95.
        ap50: at an IoU of 0.50.
        ap75: at an IoU of 0.75.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None


@dataclass(frozen=True)
class CocoScores:
    """COCO's numbers, 0..1, means over the classes with objects; None where there are none.

    Attributes:
        ap: mean over IoU thresholds 0.50, 0.55, ..., 0.95.
        ap50: at an IoU of 0.50.
        ap75: at an IoU of 0.75.
        ap_small: ``ap`` of objects of less than 32 * 32 pixels.
        ap_medium: ``ap`` of those between.
        ap_large: ``ap`` of objects of more than 96 * 96 pixels.
        ar1: largest recall with one detection a class and image, mean over the IoU thresholds.
        ar10: with ten.
        ar100: with a hundred.
        per_class: one entry a class, in the order of ``names``.
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
    """COCO's AP and AR of boxes, with at most 100 detections a class and image.

    A crowd takes any number of detections without punishing them. An object marked difficult is ignored
    as COCO ignores one outside an area range: it does not count, nor does the one detection that
    matches it. Areas are those of the boxes; COCO's own evaluation takes those of its masks.

    Args:
        detections: one an image.
        truths: the objects of the same images, with the same class names.

    Raises:
        UserError: detections and truths that do not belong together.
    """
    names = paired_names(detections, truths)
    objects, found = _objects(truths), _found(detections)
    # Class by class, so that the rows of one class at a time are held as mappings.
    parts = [_evaluate(truths, objects.of(label), found.of(label)) for label in range(len(names))]
    # Thresholds, recalls, classes, areas; and thresholds, classes, areas, limits.
    precision = np.concatenate([part[0] for part in parts], 2)[..., -1]
    recall = np.concatenate([part[1] for part in parts], 1)
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
class _Rows:
    """Boxes of all images: the image's number from 1, class, corner and sides, and what COCO asks for."""

    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    scores: NDArray[np.float64]

    def of(self, label: int) -> list[dict[str, Any]]:
        """The rows of one class, numbered from 1: the evaluation takes a match with number 0 for none."""
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
    """COCO's tables of precision and recall of one class; -1 where it has no objects that count."""
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


def _objects(truths: Sequence[GroundTruth]) -> _Rows:
    images, boxes = _places([truth.boxes for truth in truths])
    difficult = _joined([truth.difficult for truth in truths])
    labels = _joined([truth.labels for truth in truths])
    areas = np.where(difficult, _AREA_OUTSIDE_EVERY_RANGE, boxes[:, 2] * boxes[:, 3])
    crowds = _joined([truth.crowd for truth in truths])
    return _Rows(images, labels, boxes, areas, crowds, np.ones(len(boxes)))


def _found(detections: Sequence[Detections]) -> _Rows:
    images, boxes = _places([found.boxes for found in detections])
    labels = _joined([found.labels for found in detections])
    scores = _joined([found.scores for found in detections]).astype(np.float64)
    crowds = np.zeros(len(boxes), dtype=np.bool_)
    return _Rows(images, labels, boxes, boxes[:, 2] * boxes[:, 3], crowds, scores)


def _places(parts: Sequence[Boxes]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The number of each box's image, from 1, and its corner and sides ``[M, 4]``."""
    xyxy = _joined([part.xyxy for part in parts]).astype(np.float64)
    images = np.repeat(np.arange(1, len(parts) + 1), [len(part) for part in parts])
    return images, np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], 1)


def _joined(parts: Sequence[Tensor]) -> NDArray[Any]:
    return torch.cat([part.detach().cpu() for part in parts]).numpy()

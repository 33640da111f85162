"""Average precision and recall by the rules of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        ar1: largest recall with one detection a class and picture, mean over the IoU thresholds.
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
    """COCO's AP and AR of boxes, with at most 100 detections a class and picture.

    A crowd takes any number of detections without punishing them. An object marked difficult is ignored
    as COCO ignores one outside an area range: it does not count, nor does the one detection that
    matches it. Areas are those of the boxes; COCO's own evaluation takes those of its masks.

    Args:
        detections: one a picture.
        truths: the objects of the same pictures, with the same class names.

    Raises:
        UserError: detections and truths that do not belong together.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    names = paired_names(detections, truths)
    frame: dict[str, Any] = {
        "images": [
            {"id": number, "height": truth.boxes.size.height, "width": truth.boxes.size.width}
            for number, truth in enumerate(truths, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }
    objects = _numbered([_objects(number, truth) for number, truth in enumerate(truths, 1)])
    found = _numbered([_found(number, part) for number, part in enumerate(detections, 1)])
    evaluation = COCOeval_faster(
        COCO({**frame, "annotations": objects}), COCO({**frame, "annotations": found}), "bbox"
    )
    evaluation.evaluate()
    evaluation.accumulate()
    # Thresholds, recalls, classes, areas, limits; -1 where a class has no objects.
    precision: NDArray[np.float64] = np.asarray(evaluation.eval["precision"])
    recall: NDArray[np.float64] = np.asarray(evaluation.eval["recall"])
    precision = precision[:, :, :, :, -1]
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


def _corner_and_sides(boxes: Boxes) -> list[list[float]]:
    xyxy = boxes.xyxy.detach().cpu().double().numpy()
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], 1).tolist()


def _objects(picture: int, truth: GroundTruth) -> list[dict[str, Any]]:
    flags = zip(truth.labels.tolist(), truth.difficult.tolist(), truth.crowd.tolist(), strict=True)
    return [
        {
            "image_id": picture,
            "category_id": label + 1,
            "bbox": box,
            "area": _AREA_OUTSIDE_EVERY_RANGE if difficult else box[2] * box[3],
            "iscrowd": int(crowd),
        }
        for box, (label, difficult, crowd) in zip(_corner_and_sides(truth.boxes), flags, strict=True)
    ]


def _found(picture: int, found: Detections) -> list[dict[str, Any]]:
    boxes = _corner_and_sides(found.boxes)
    rows = zip(boxes, found.labels.tolist(), found.scores.tolist(), strict=True)
    return [
        {
            "image_id": picture,
            "category_id": label + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "score": score,
            "iscrowd": 0,
        }
        for box, label, score in rows
    ]


def _numbered(parts: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One list, numbered from 1: the evaluation takes a match with number 0 for none."""
    flat = [row for part in parts for row in part]
    return [{**row, "id": number} for number, row in enumerate(flat, 1)]

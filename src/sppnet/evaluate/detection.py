"""All measures of a detector in one mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sppnet.evaluate.coco import coco_scores
from sppnet.evaluate.pairs import paired_names
from sppnet.evaluate.voc import voc_curves
from sppnet.structures import Detections, GroundTruth


def detection_metrics(detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> dict[str, Any]:
    """COCO's and VOC's average precision of what was found in some images.

    Args:
        detections: one an image, in any order within it.
        truths: the objects of the same images, in the same order.

    Returns:
        A mapping that JSON can hold, numbers 0..1:

        - "AP50", "AP75", "AP": COCO's, at IoU 0.50, 0.75 and the mean over 0.50, 0.55, ..., 0.95.
        - "APs", "APm", "APl": "AP" of small, medium and large objects (32 and 96 pixels squared).
        - "AR100": COCO's largest recall with 100 detections a class and image.
        - "VOC07_AP50": VOC 2007's 11-point AP at IoU 0.50; "VOC_AP50": the area AP of later years.
        - "images", "objects": how many; neither difficult objects nor crowds are counted.
        - "per_class": for each name its "AP50", "AP75", "AP", "VOC07_AP50", "VOC_AP50", "objects".

        A class without objects that count has None and takes no part in the means; a mean of nothing
        is None.

    Raises:
        UserError: no images, sequences of different lengths, class names that differ or repeat, or a
            score that is not finite.
    """
    names = paired_names(detections, truths)
    coco = coco_scores(detections, truths)
    curves = voc_curves(detections, truths)
    eleven = [curve.eleven_point for curve in curves]
    area = [curve.area for curve in curves]
    per_class = {
        name: {
            "AP50": coco.per_class[number].ap50,
            "AP75": coco.per_class[number].ap75,
            "AP": coco.per_class[number].ap,
            "VOC07_AP50": eleven[number],
            "VOC_AP50": area[number],
            "objects": curves[number].objects,
        }
        for number, name in enumerate(names)
    }
    return {
        "AP50": coco.ap50,
        "AP75": coco.ap75,
        "AP": coco.ap,
        "APs": coco.ap_small,
        "APm": coco.ap_medium,
        "APl": coco.ap_large,
        "AR100": coco.ar100,
        "VOC07_AP50": _mean(eleven),
        "VOC_AP50": _mean(area),
        "images": len(truths),
        "objects": sum(curve.objects for curve in curves),
        "per_class": per_class,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

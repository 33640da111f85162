"""Metrics of a detector in one mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sppnet.evaluate.coco import coco_scores
from sppnet.evaluate.pairs import paired_names
from sppnet.evaluate.voc import voc_curves
from sppnet.structures import Detections, GroundTruth


def detection_metrics(detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> dict[str, Any]:
    """Compute the average precision of COCO and of VOC.

    Args:
        detections: one per image; the detections of an image may be in any order.
        truths: the objects of the same images, in the same order.

    Returns:
        A mapping that can be written as JSON, with values 0..1:

        - "AP50", "AP75", "AP": AP of COCO at IoU 0.50, at IoU 0.75 and as the mean over 0.50, 0.55, ...,
          0.95.
        - "APs", "APm", "APl": "AP" of small, medium and large objects (limits 32 and 96 pixels squared).
        - "AR100": maximum recall of COCO with 100 detections per class and image.
        - "VOC07_AP50": 11-point AP of VOC 2007 at IoU 0.50.
        - "VOC_AP50": area under the curve, the AP of VOC 2010 and later, at IoU 0.50.
        - "images", "objects": counts, without difficult objects and crowds.
        - "per_class": for each name, "AP50", "AP75", "AP", "VOC07_AP50", "VOC_AP50" and "objects".

        The values of a class without objects are None and are left out of the means. Without any objects
        the means are None.

    Raises:
        UserError: there are no images, the sequences differ in length, class names differ or are not
            unique, or a score is not finite.

    Examples:
        >>> import torch
        >>> from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize
        >>> box = Boxes(torch.tensor([[10.0, 10, 60, 60]]), ImageSize(100, 100))
        >>> truth = GroundTruth.make(box, torch.tensor([0]), ("cat",))
        >>> found = Detections(box, torch.tensor([0.9]), torch.tensor([0]), ("cat",))
        >>> detection_metrics([found], [truth])["AP"]
        1.0
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

"""From windows to detections: score, move, score again, merge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.detect.candidates import candidates
from sppnet.detect.options import DetectorOptions
from sppnet.detect.regression import Regressors
from sppnet.features import score_rows
from sppnet.learn import LinearModel
from sppnet.ops.boxes import ioa, iou, nms, vote
from sppnet.structures import Boxes, Detections, FeatureMaps

# How many times the logit of a box's IoU counts beside its margin.
IOU_WEIGHT = 0.5
# Two answers for one object: much the same box, or one of the same class inside the other.
SAME_BOX = 0.6
INSIDE = 0.85


@dataclass(frozen=True)
class Heads:
    """What a fitted detector knows beside its backbone.

    Attributes:
        names: class names.
        svm: weight ``[K, D]``, bias ``[K]``, for unscaled rows.
        regressors: one a class.
        calibration: ``[K, 2]``: slope a and offset b of each class's probability, ``sigmoid(a * s + b)``.
    """

    names: tuple[str, ...]
    svm: LinearModel
    regressors: Regressors
    calibration: Tensor


def margins_and_boxes(
    maps: FeatureMaps, windows: Boxes, heads: Heads, options: DetectorOptions
) -> tuple[Boxes, Tensor, Tensor]:
    """Candidates of all classes after regression: boxes, margins ``[N]`` and labels ``[N]``.

    A margin is the mean of the SVM's before and after the box was moved, and how well the box sits.
    Boxes and what is said of them are on the CPU, wherever the maps are.
    """
    scores = score_rows(maps, windows, heads.svm.weight, heads.svm.bias, options.levels).cpu()
    index, labels = candidates(windows, scores)
    boxes = windows[index]
    margins = scores[index, labels]
    if options.regressions and len(index):
        projected = heads.regressors.projection(maps)
        for _ in range(options.regressions):
            boxes = heads.regressors(projected, boxes, labels)
        again = score_rows(maps, boxes, heads.svm.weight, heads.svm.bias, options.levels).cpu()
        margins = (margins + again[torch.arange(len(labels)), labels]) / 2
        margins = margins + IOU_WEIGHT * heads.regressors.iou_logits(projected, boxes, labels)
    return boxes, margins, labels


def merge(
    boxes: Boxes, logits: Tensor, labels: Tensor, names: tuple[str, ...], options: DetectorOptions
) -> Detections:
    """Suppression and voting class by class; at most ``per_class`` a class, best first.

    The order is that of the logits: in float32 the probabilities of sure detections are all 1.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for number in range(len(names)):
        mine = (labels == number).nonzero()[:, 0]
        place, logit = boxes.xyxy[mine], logits[mine]
        kept = nms(place, logit, options.nms, options.per_class)
        voters = torch.sigmoid(logit)
        merged = place[kept] if options.vote >= 1 else vote(place[kept], place, voters, options.vote)
        parts.append((merged, logit[kept], labels[mine][kept]))
    place, logit, label = (torch.cat(column) for column in zip(*parts, strict=True))
    logit, order = torch.sort(logit, descending=True, stable=True)
    return Detections(Boxes(place[order], boxes.size), torch.sigmoid(logit), label[order], names)


def detect(maps: FeatureMaps, windows: Boxes, heads: Heads, options: DetectorOptions) -> Detections:
    """The detections of one image; scores are probabilities."""
    boxes, margins, labels = margins_and_boxes(maps, windows, heads, options)
    slope, offset = heads.calibration[labels].unbind(1)
    return merge(boxes, slope * margins + offset, labels, heads.names, options)


def class_agnostic_nms(found: Detections) -> Detections:
    """One answer for each object, for people to look at: what repeats a better detection goes.

    It goes when its IoU with a better one is above 0.6, whatever the classes, or when one of the two, of
    the same class, lies inside the other by 85% and more. Metrics are taken without this step, which
    can only lower them.
    """
    place = found.boxes.xyxy
    inside = torch.maximum(ioa(place, place), ioa(place, place).T) >= INSIDE
    same = (iou(place, place) > SAME_BOX) | (inside & (found.labels[:, None] == found.labels[None]))
    kept: list[int] = []
    for i in range(len(found)):
        if not bool(same[i, kept].any()):
            kept.append(i)
    return found[torch.tensor(kept, dtype=torch.int64)]

"""Average precision by the rules of PASCAL VOC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sppnet.errors import UserError
from sppnet.evaluate.pairs import paired_names
from sppnet.ops.boxes import iou
from sppnet.structures import Detections, GroundTruth

_RECALLS = np.arange(11) / 10


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of one class for every threshold.

    Attributes:
        scores: float64 ``[M]``, descending; the threshold of each point. Ignored detections have no point.
        precision: float64 ``[M]``, fraction of the detections above the threshold that are correct.
        recall: float64 ``[M]``, fraction of the objects detected above the threshold; NaN without objects.
        objects: number of objects, without ignored ones.

    Examples:
        >>> import numpy as np
        >>> curve = precision_recall(np.array([0.9, 0.5]), np.array([True, False]), objects=1)
        >>> curve.precision.tolist(), curve.area
        ([1.0, 0.5], 1.0)
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    objects: int

    @property
    def eleven_point(self) -> float | None:
        """The AP of VOC 2007; None without objects.

        It is the mean over recalls 0, 0.1, ..., 1 of the highest precision at that recall or above.
        """
        if not self.objects:
            return None
        reached = [self.precision[self.recall >= recall] for recall in _RECALLS]
        return float(np.mean([values.max() if values.size else 0.0 for values in reached]))

    @property
    def area(self) -> float | None:
        """The AP of VOC 2010 and later, the area under the monotone curve; None without objects."""
        if not self.objects:
            return None
        best = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float(np.diff(self.recall, prepend=0.0) @ best)


def precision_recall(scores: NDArray[np.float64], right: NDArray[np.bool_], objects: int) -> PrecisionRecall:
    """Compute the precision-recall curve of detections or of ranked images.

    Args:
        scores: ``[M]``, in any order; equal scores stay in the given order.
        right: bool ``[M]``, True for correct detections.
        objects: number of objects.

    Returns:
        The curve.

    Examples:
        >>> import numpy as np
        >>> curve = precision_recall(np.array([0.5, 0.9]), np.array([False, True]), objects=2)
        >>> curve.recall.tolist()
        [0.5, 0.5]
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order], dtype=np.float64)
    recall = hits / objects if objects else np.full_like(hits, np.nan)
    return PrecisionRecall(scores[order], hits / np.arange(1, len(hits) + 1), recall, objects)


def voc_curves(
    detections: Sequence[Detections], truths: Sequence[GroundTruth], overlap: float = 0.5
) -> tuple[PrecisionRecall, ...]:
    """Match detections with objects by the rules of the VOC development kit, VOCevaldet.m.

    The detections of all images are processed by descending score; equal scores stay in the given order.
    Each is compared with all objects of its class in its image, including difficult objects and objects
    that are matched already. Only the object with the highest IoU counts. If the IoU is below ``overlap``,
    the detection is a false positive. If the object is difficult or a crowd, the detection is ignored. If
    the object is matched already, the detection is a false positive. VOC adds one pixel to the
    difference of its inclusive coordinates; this gives the sides of `Boxes`, which have continuous edges.

    Args:
        detections: one per image.
        truths: the objects of the same images, with the same class names.
        overlap: minimum IoU of a match, above 0 and at most 1.

    Returns:
        One curve per class, in the order of ``names``.

    Raises:
        UserError: detections and truths differ in length or class names, a score is not finite, or
            ``overlap`` is out of range.

    Examples:
        >>> import torch
        >>> from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize
        >>> box = Boxes(torch.tensor([[10.0, 10, 60, 60]]), ImageSize(100, 100))
        >>> truth = GroundTruth.make(box, torch.tensor([0]), ("cat",))
        >>> found = Detections(box, torch.tensor([0.9]), torch.tensor([0]), ("cat",))
        >>> voc_curves([found], [truth])[0].eleven_point
        1.0
    """
    names = paired_names(detections, truths)
    if not 0 < overlap <= 1:
        raise UserError("overlap", "an IoU above 0 and at most 1", overlap)
    joined = _concatenate([_matches(*pair, overlap) for pair in zip(detections, truths, strict=True)])
    easy = torch.cat([truth.labels[~(truth.difficult | truth.crowd)].cpu() for truth in truths]).numpy()
    curves: list[PrecisionRecall] = []
    for label in range(len(names)):
        own = joined.labels == label
        order = np.flatnonzero(own)[np.argsort(-joined.scores[own], kind="stable")]
        order = order[~joined.ignored[order]]
        objects = joined.objects[order]
        matched = np.flatnonzero(objects >= 0)
        correct = np.zeros(len(order), dtype=np.bool_)
        correct[matched[np.unique(objects[matched], return_index=True)[1]]] = True
        curves.append(precision_recall(joined.scores[order], correct, int((easy == label).sum())))
    return tuple(curves)


@dataclass(frozen=True)
class _Matches:
    """Detections and the objects that they match.

    Attributes:
        scores: ``[M]``.
        labels: ``[M]``.
        objects: ``[M]``, the index of the matched object, or -1.
        ignored: ``[M]``, True for detections that match a difficult object or a crowd.
        count: number of objects.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    objects: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    count: int


def _matches(found: Detections, truth: GroundTruth, overlap: float) -> _Matches:
    scores = found.scores.detach().cpu().double().numpy()
    labels = found.labels.cpu().numpy()
    nothing = np.full(len(found), -1, dtype=np.int64)
    if not len(truth) or not len(found):
        return _Matches(scores, labels, nothing, nothing >= 0, len(truth))
    # In float64, because float32 may round an IoU just below the threshold up to it.
    ious = iou(found.boxes.xyxy.detach().cpu().double(), truth.boxes.xyxy.cpu().double()).numpy()
    ious = np.where(labels[:, None] == truth.labels.cpu().numpy()[None], ious, -1.0)
    best = ious.argmax(1)
    matched = ious[np.arange(len(found)), best] >= overlap
    hard = (truth.difficult | truth.crowd).cpu().numpy()[best]
    return _Matches(scores, labels, np.where(matched, best, -1), matched & hard, len(truth))


def _concatenate(per_image: Sequence[_Matches]) -> _Matches:
    """Concatenate the matches of all images, with object indices over all images."""
    starts = np.cumsum([0, *(matches.count for matches in per_image)])
    objects = [
        np.where(matches.objects >= 0, matches.objects + start, -1)
        for matches, start in zip(per_image, starts[:-1], strict=True)
    ]
    return _Matches(
        np.concatenate([matches.scores for matches in per_image]),
        np.concatenate([matches.labels for matches in per_image]),
        np.concatenate(objects),
        np.concatenate([matches.ignored for matches in per_image]),
        int(starts[-1]),
    )

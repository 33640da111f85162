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
    """Precision and recall as the threshold falls, for one class.

    Attributes:
        scores: float64 ``[M]``, falling; the threshold at each point. Ignored detections have no point.
        precision: float64 ``[M]``, the share of the detections down to here that are right.
        recall: float64 ``[M]``, the share of the objects found down to here; NaN without objects.
        objects: objects that count.
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    objects: int

    @property
    def eleven_point(self) -> float | None:
        """VOC 2007's AP: the mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or more.

        None without objects.
        """
        if not self.objects:
            return None
        reached = [self.precision[self.recall >= recall] for recall in _RECALLS]
        return float(np.mean([part.max() if part.size else 0.0 for part in reached]))

    @property
    def area(self) -> float | None:
        """The AP of VOC 2010 and later: the area under the curve made monotone; None without objects."""
        if not self.objects:
            return None
        best = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float(np.diff(self.recall, prepend=0.0) @ best)


def precision_recall(scores: NDArray[np.float64], right: NDArray[np.bool_], objects: int) -> PrecisionRecall:
    """The curve of detections, or of ranked images.

    Args:
        scores: ``[M]``, any order; equal scores keep theirs.
        right: bool ``[M]``.
        objects: how many there are to find.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order], dtype=np.float64)
    recall = hits / objects if objects else np.full_like(hits, np.nan)
    return PrecisionRecall(scores[order], hits / np.arange(1, len(hits) + 1), recall, objects)


def voc_curves(
    detections: Sequence[Detections], truths: Sequence[GroundTruth], overlap: float = 0.5
) -> tuple[PrecisionRecall, ...]:
    """VOC's matching of detections with objects, class by class (VOCevaldet.m).

    Over all images, best first and equal scores in the order given, a detection is compared with the
    objects of its class in its image, claimed and difficult ones included. The one of largest IoU
    decides alone: below ``overlap`` the detection is wrong; a difficult object means that it is ignored;
    an object that a better detection has claimed makes it wrong. A crowd counts as difficult. VOC's sides
    with one pixel added are the sides of our boxes.

    Args:
        detections: one an image.
        truths: the objects of the same images, with the same class names.
        overlap: IoU from which a detection fits an object, above 0.

    Returns:
        One curve a class, in the order of ``names``.

    Raises:
        UserError: detections and truths that do not belong together, or an ``overlap`` outside 0..1.
    """
    names = paired_names(detections, truths)
    if not 0 < overlap <= 1:
        raise UserError("overlap", "an IoU above 0, at most 1", overlap)
    joined = _join([_matches(*pair, overlap) for pair in zip(detections, truths, strict=True)])
    easy = torch.cat([truth.labels[~(truth.difficult | truth.crowd)].cpu() for truth in truths]).numpy()
    curves: list[PrecisionRecall] = []
    for label in range(len(names)):
        own = joined.labels == label
        order = np.flatnonzero(own)[np.argsort(-joined.scores[own], kind="stable")]
        order = order[~joined.ignored[order]]
        claims = joined.objects[order]
        fits = np.flatnonzero(claims >= 0)
        right = np.zeros(len(order), dtype=np.bool_)
        right[fits[np.unique(claims[fits], return_index=True)[1]]] = True
        curves.append(precision_recall(joined.scores[order], right, int((easy == label).sum())))
    return tuple(curves)


@dataclass(frozen=True)
class _Matches:
    """Detections, each with the object that it fits: its number, or -1; numbers run over all ``count``."""

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
    # float64: a detection with an IoU of exactly one half fits.
    shares = iou(found.boxes.xyxy.detach().cpu().double(), truth.boxes.xyxy.cpu().double()).numpy()
    shares = np.where(labels[:, None] == truth.labels.cpu().numpy()[None], shares, -1.0)
    best = shares.argmax(1)
    fits = shares[np.arange(len(found)), best] >= overlap
    hard = (truth.difficult | truth.crowd).cpu().numpy()[best]
    return _Matches(scores, labels, np.where(fits, best, -1), fits & hard, len(truth))


def _join(parts: Sequence[_Matches]) -> _Matches:
    starts = np.cumsum([0, *(part.count for part in parts)])
    objects = [
        np.where(part.objects >= 0, part.objects + start, -1)
        for part, start in zip(parts, starts[:-1], strict=True)
    ]
    return _Matches(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(objects),
        np.concatenate([part.ignored for part in parts]),
        int(starts[-1]),
    )

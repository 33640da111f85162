"""Suppression of duplicates among candidates, detections of a class, and detections of all classes."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.detect.head_options import PostOptions
from sppnet.ops.boxes import ioa, iou, nms, vote
from sppnet.structures import Boxes, Detections


def candidates(
    windows: Boxes, scores: Tensor, options: PostOptions, limits: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Select the candidates of each class without near-duplicates.

    Low scores remain, because boxes may be scored again after they are refined. In crowded images, each
    object has about twenty proposals that are not near-duplicates.

    Args:
        windows: N proposals of an image.
        scores: ``[N, K]``, decision scores of the proposals.
        options: ``score_above``, ``thinning``, ``best``, ``candidates``, ``candidates_per_image`` and
            ``per_class`` are used.
        limits: maximum number per class and per image, instead of ``candidates`` and
            ``candidates_per_image``.

    Returns:
        int64 ``[M]`` twice: indices of proposals, and their classes; class by class, best first.
    """
    most, total = limits or (options.candidates or options.per_class, options.candidates_per_image)
    index: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
    labels: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
    for number in range(scores.shape[1]):
        mine = scores[:, number]
        if options.best:
            # Equal scores are common (equal cells); their order is undefined in topk, but not in a stable
            # sort.
            best = torch.sort(mine, descending=True, stable=True).indices[: options.best]
            best = best[mine[best] > options.score_above]
        else:
            best = (mine > options.score_above).nonzero()[:, 0]
        kept = best[nms(windows.xyxy[best], mine[best], options.thinning, most)]
        index.append(kept)
        labels.append(torch.full((len(kept),), number, dtype=torch.int64))
    chosen, of_class = torch.cat(index), torch.cat(labels)
    if total and len(chosen) > total:
        order = torch.sort(scores[chosen, of_class], descending=True, stable=True).indices
        best = order[:total].sort().values
        chosen, of_class = chosen[best], of_class[best]
    return chosen, of_class


def merge(
    boxes: Boxes, logits: Tensor, labels: Tensor, names: tuple[str, ...], options: PostOptions
) -> Detections:
    """Apply class-wise NMS and box voting; at most ``per_class`` detections per class remain.

    Detections are ranked by logits, because the probabilities of confident detections are all 1 in float32.

    Args:
        boxes: ``[M, 4]`` on an image.
        logits: ``[M]``, logits of the probabilities.
        labels: ``[M]``.
        names: class names.
        options: ``nms``, ``vote`` and ``per_class`` are used.

    Returns:
        The detections, best first.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for number in range(len(names)):
        mine = (labels == number).nonzero()[:, 0]
        corners, logit = boxes.xyxy[mine], logits[mine]
        kept = nms(corners, logit, options.nms, options.per_class)
        voters = torch.sigmoid(logit)
        merged = corners[kept] if options.vote >= 1 else vote(corners[kept], corners, voters, options.vote)
        parts.append((merged, logit[kept], labels[mine][kept]))
    corners, logit, label = (torch.cat(column) for column in zip(*parts, strict=True))
    logit, order = torch.sort(logit, descending=True, stable=True)
    return Detections(Boxes(corners[order], boxes.size), torch.sigmoid(logit), label[order], names)


def without_repeats(found: Detections, options: PostOptions) -> Detections:
    """Apply class-agnostic NMS, so that each object has one detection.

    A detection is removed if its IoU with a better one is above ``same_box``, for any classes, or if the IoA
    of one of both in the other is at least ``inside`` and their classes are equal.

    Args:
        found: detections, best first.
        options: ``same_box`` and ``inside`` are used.

    Returns:
        The remaining detections.
    """
    corners = found.boxes.xyxy
    same = iou(corners, corners) > options.same_box
    if options.inside < 1:
        within = torch.maximum(ioa(corners, corners), ioa(corners, corners).T) >= options.inside
        same = same | (within & (found.labels[:, None] == found.labels[None]))
    kept: list[int] = []
    for i in range(len(found)):
        if not bool(same[i, kept].any()):
            kept.append(i)
    return found[torch.tensor(kept, dtype=torch.int64)]

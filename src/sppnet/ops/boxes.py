"""Arithmetic on boxes: float tensors ``[N, 4]``, ``(x0, y0, x1, y1)``, continuous edges."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.ops import _nms

# A regressor's largest answer: a side grows or shrinks at most by this factor's logarithm.
LARGEST_LOG_RATIO = 4.0


def areas(boxes: Tensor) -> Tensor:
    """``[N]``, square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersections(ours: Tensor, theirs: Tensor) -> Tensor:
    """Areas ``[N, M]`` that each of N boxes shares with each of M."""
    low = torch.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = torch.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(ours: Tensor, theirs: Tensor) -> Tensor:
    """Intersection over union ``[N, M]``, 0..1; 0 between boxes without area."""
    shared = intersections(ours, theirs)
    union = areas(ours)[:, None] + areas(theirs)[None] - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)


def ioa(ours: Tensor, theirs: Tensor) -> Tensor:
    """The share ``[N, M]`` of each of N boxes that lies inside each of M; COCO's overlap with crowds."""
    own = areas(ours)[:, None]
    return torch.where(own > 0, intersections(ours, theirs) / own.clamp(min=torch.finfo(own.dtype).tiny), 0.0)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)


def encode_deltas(boxes: Tensor, targets: Tensor) -> Tensor:
    """What moves each box onto its target (paper section 3.6 of the released code; R-CNN, appendix C).

    Args:
        boxes: ``[N, 4]``.
        targets: ``[N, 4]``, one for each box.

    Returns:
        ``[N, 4]``: shift of the centre in x and y over the box's width and height, and the logarithms of
        the ratios of widths and heights. ``decode_deltas(boxes, encode_deltas(boxes, targets))`` is
        ``targets``.
    """
    centre, sides = _centres(boxes)
    goal, goal_sides = _centres(targets)
    return torch.cat([(goal - centre) / sides, (goal_sides / sides).log()], 1)


def decode_deltas(boxes: Tensor, deltas: Tensor) -> Tensor:
    """The boxes ``[N, 4]`` that ``deltas`` ``[N, 4]`` move ``boxes`` to; the inverse of `encode_deltas`.

    A side changes at most by a factor of ``exp(4)``, so that a wild answer stays finite.
    """
    centre, sides = _centres(boxes)
    goal = centre + deltas[:, :2] * sides
    half = sides * deltas[:, 2:].clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp() / 2
    return torch.cat([goal - half, goal + half], 1)


def nms(boxes: Tensor, scores: Tensor, threshold: float, most: int | None = None) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: ``[N, 4]``.
        scores: ``[N]``.
        threshold: a box goes when its IoU with a better kept one is above this.
        most: stop when so many boxes are kept.

    Returns:
        int64, positions of the boxes that stay, best first; among equal scores the first comes first.
    """
    if boxes.device.type == "cpu":
        most = len(boxes) if most is None else most
        place, score = boxes.detach().float().contiguous().numpy(), scores.detach().float().numpy()
        return torch.from_numpy(_nms.keep(place, score, threshold, most))
    from torchvision.ops import nms as on_device

    return on_device(boxes, scores, threshold)[:most]


def vote(kept: Tensor, boxes: Tensor, weights: Tensor, threshold: float) -> Tensor:
    """Box voting: each kept box becomes the mean of the boxes that overlap it, by IoU times weight.

    Args:
        kept: ``[K, 4]``, what suppression left.
        boxes: ``[N, 4]``, everything before it, of the same class.
        weights: ``[N]``, at least 0; how much each box counts.
        threshold: boxes of at least this IoU with the kept one take part.

    Returns:
        ``[K, 4]``; a kept box with no weight around it stays as it was.
    """
    if not len(kept):
        return kept
    share = iou(kept, boxes)
    share = torch.where(share >= threshold, share, 0.0) * weights[None]
    total = share.sum(1, keepdim=True)
    return torch.where(total > 0, share @ boxes / total.clamp(min=1e-12), kept)

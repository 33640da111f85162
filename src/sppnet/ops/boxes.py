"""Arithmetic on boxes: float tensors ``[N, 4]``, ``(x0, y0, x1, y1)``, with continuous edges."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.ops.cpu.kernels import nms as nms_kernel

LARGEST_LOG_RATIO = 4.0
"""Maximum absolute log ratio of a side that a regressor may predict."""


def areas(boxes: Tensor) -> Tensor:
    """Compute areas ``[N]`` in square pixels.

    Examples:
        >>> areas(torch.tensor([[0.0, 0.0, 2.0, 3.0]]))
        tensor([6.])
    """
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersections(ours: Tensor, theirs: Tensor) -> Tensor:
    """Compute the areas ``[N, M]`` of the intersections of N boxes with M boxes.

    Examples:
        >>> intersections(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 5.0, 5.0]]))
        tensor([[1.]])
    """
    low = torch.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = torch.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(ours: Tensor, theirs: Tensor) -> Tensor:
    """Compute the intersection over union ``[N, M]``, 0 to 1; 0 between boxes without area.

    Examples:
        >>> iou(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), torch.tensor([[1.0, 0.0, 2.0, 1.0]]))
        tensor([[0.5000]])
    """
    shared = intersections(ours, theirs)
    union = areas(ours)[:, None] + areas(theirs)[None] - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)


def ioa(ours: Tensor, theirs: Tensor) -> Tensor:
    """Compute the intersection over own area ``[N, M]`` of N boxes, as COCO does with crowd regions.

    Examples:
        >>> ioa(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), torch.tensor([[1.0, 0.0, 9.0, 9.0]]))
        tensor([[0.5000]])
    """
    own = areas(ours)[:, None]
    return torch.where(own > 0, intersections(ours, theirs) / own.clamp(min=torch.finfo(own.dtype).tiny), 0.0)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)


def encode_deltas(boxes: Tensor, targets: Tensor) -> Tensor:
    """Compute the regression targets of boxes (R-CNN, Girshick et al. 2014, appendix C).

    Args:
        boxes: ``[N, 4]``.
        targets: ``[N, 4]``, one per box.

    Returns:
        ``[N, 4]``: shift of the centre in x and y over the box's width and height, and the logarithms of
        the ratios of widths and heights.

    Examples:
        >>> boxes, targets = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> encode_deltas(boxes, targets)
        tensor([[0.5000, 0.0000, 0.0000, 0.0000]])
        >>> decode_deltas(boxes, encode_deltas(boxes, targets))
        tensor([[1., 0., 3., 2.]])
    """
    centre, sides = _centres(boxes)
    goal, goal_sides = _centres(targets)
    return torch.cat([(goal - centre) / sides, (goal_sides / sides).log()], 1)


def decode_deltas(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Move boxes ``[N, 4]`` by ``deltas`` ``[N, 4]``; the inverse of `encode_deltas`.

    A side changes at most by a factor of ``exp(4)``, so that outliers stay finite.

    Examples:
        >>> decode_deltas(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.5, 0.0, 0.0, 0.0]]))
        tensor([[1., 0., 3., 2.]])
    """
    centre, sides = _centres(boxes)
    goal = centre + deltas[:, :2] * sides
    half = sides * deltas[:, 2:].clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp() / 2
    return torch.cat([goal - half, goal + half], 1)


def nms(boxes: Tensor, scores: Tensor, threshold: float, most: int | None = None) -> Tensor:
    """Suppress boxes that overlap boxes of higher scores (greedy non-maximum suppression).

    Args:
        boxes: ``[N, 4]``.
        scores: ``[N]``.
        threshold: a box is removed when its IoU with a selected box of higher score is above this.
        most: maximum number of boxes to select; None for no limit.

    Returns:
        int64, indices of the selected boxes, highest score first; of equal scores the first comes first.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
        >>> nms(boxes, torch.tensor([0.5, 0.9, 0.7]), threshold=0.3)
        tensor([1, 2])
    """
    if boxes.device.type == "cpu":
        most = len(boxes) if most is None else most
        place, score = boxes.detach().float().contiguous().numpy(), scores.detach().float().numpy()
        return torch.from_numpy(nms_kernel.keep(place, score, threshold, most))
    from torchvision.ops import nms as on_device

    return on_device(boxes, scores, threshold)[:most]


def vote(kept: Tensor, boxes: Tensor, weights: Tensor, threshold: float) -> Tensor:
    """Replace each selected box by the mean of the boxes that overlap it, by IoU times weight (box voting).

    Args:
        kept: ``[K, 4]``, boxes selected by `nms`.
        boxes: ``[N, 4]``, all boxes of the same class before `nms`.
        weights: ``[N]``, at least 0.
        threshold: minimum IoU of the boxes in a mean.

    Returns:
        ``[K, 4]``; a box without weight around it is returned unchanged.

    Examples:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]])
        >>> vote(boxes[:1], boxes, torch.tensor([1.0, 2.0]), threshold=0.5)
        tensor([[0.0000, 0.0000, 2.0000, 1.5000]])
    """
    if not len(kept):
        return kept
    share = iou(kept, boxes)
    share = torch.where(share >= threshold, share, 0.0) * weights[None]
    total = share.sum(1, keepdim=True)
    return torch.where(total > 0, share @ boxes / total.clamp(min=1e-12), kept)

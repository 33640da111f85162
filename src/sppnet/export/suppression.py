"""ONNX graphs of suppression and box voting, like `sppnet.detect.suppression`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sppnet.export.parts import PostParts
from sppnet.export.value import Value

_OUT = -1e30  # the logit of a box in the suppression of other classes
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Found:
    """Detections: boxes, float32 ``[N, 4]``, scores, float32 ``[N]``, and labels, int64 ``[N]``."""

    boxes: Value
    scores: Value
    labels: Value

    def pick(self, index: Value) -> Found:
        """Select detections by index."""
        return Found(self.boxes.take(index), self.scores.take(index), self.labels.take(index))


def candidates(windows: Value, scores: Value, post: PostParts, *, some: bool) -> Found:
    """Return the candidates: the best windows of each class, without near-duplicates.

    Args:
        windows: ``[N, 4]``.
        scores: ``[N, K]``.
        post: which are candidates.
        some: whether there may be more windows than ``post.best``.
    """
    builder = windows.builder
    by_class = scores.transpose(1, 0)
    if some and post.best:
        # Only the best windows of a class are candidates of it.
        count = builder.constant(post.best, np.int64).minimum(windows.length())
        values, index = builder.top(by_class, count)
        nothing = builder.constant(post.least, np.float32) + by_class * 0.0
        by_class = builder.op("ScatterElements", nothing, index, values, axis=1)
    chosen = suppress(windows, by_class, post.thinning, post.candidates, post.least)
    labels, index = chosen.take(1, 1), chosen.take(2, 1)
    flat = labels * windows.length() + index
    found = Found(windows.take(index), by_class.reshape(-1).take(flat), labels)
    if not post.candidates_per_image:
        return found
    limit = builder.constant(post.candidates_per_image, np.int64).minimum(labels.length())
    _, best = builder.top(found.scores, limit)
    kept, _ = builder.sort(best, descending=False)
    return found.pick(kept)


def suppress(boxes: Value, scores: Value, overlap: float, most: int, least: float) -> Value:
    """Apply non-maximum suppression per class.

    Args:
        boxes: ``[N, 4]``.
        scores: ``[K, N]``; boxes with scores of at most ``least`` are ignored.
        overlap: a box is removed if its IoU with a better box is above this value.
        most: largest number of boxes per class.
        least: lower limit of the scores.

    Returns:
        int64 ``[M, 3]``: 0, class and index of each remaining box, class by class.
    """
    builder = boxes.builder
    limits = (builder.constant([v], np.float32) for v in (overlap, least))
    count = builder.constant([most], np.int64)
    above, below = limits
    return builder.op(
        "NonMaxSuppression", boxes.unsqueeze(0), scores.unsqueeze(0), count, above, below, kind=np.int64
    )


def merge(found: Found, classes: int, post: PostParts) -> Found:
    """Apply suppression and box voting per class; return detections by descending logit."""
    builder = found.boxes.builder
    number = builder.constant(np.arange(classes)[:, None], np.int64)
    out = builder.constant(_OUT, np.float32)
    by_class = builder.where(number.equal(found.labels.unsqueeze(0)), found.scores.unsqueeze(0), out)
    kept = found.pick(suppress(found.boxes, by_class, post.nms, post.per_class, _OUT).take(2, 1))
    if post.vote < 1:
        kept = replace(kept, boxes=_vote(kept, found, post.vote))
    _, order = builder.sort(kept.scores, descending=True)
    return kept.pick(order)


def _vote(kept: Found, every: Found, threshold: float) -> Value:
    """Replace each box by the mean of the overlapping boxes of its class, weighted by IoU times probability.

    The classes are processed one by one, because a matrix of all pairs would need too much memory.
    """
    builder = kept.boxes.builder

    def one(i: Value, states: list[Value]) -> tuple[None, list[Value]]:
        own_voters = builder.positions(every.labels.equal(i))
        own_kept = builder.positions(kept.labels.equal(i))
        voters, boxes = every.pick(own_voters), kept.boxes.take(own_kept)
        weights = builder.op("Sigmoid", voters.scores)
        overlap = iou(boxes, voters.boxes)
        zero = builder.constant(0, np.float32)
        share = builder.where(overlap >= threshold, overlap, zero) * weights.unsqueeze(0)
        total = share.reduce("Sum", 1, keep=True)
        mean = share.matmul(voters.boxes) / total.maximum(1e-12)
        merged = builder.where(total > 0.0, mean, boxes)
        return None, [builder.op("ScatterElements", states[0], _four_columns(own_kept), merged, axis=0)]

    last = builder.concat([builder.constant([-1], np.int64), every.labels]).reduce("Max")
    return builder.loop([kept.boxes], one, last + 1)[0]


def _four_columns(index: Value) -> Value:
    """Repeat indices ``[N]`` to ``[N, 4]``."""
    return index.unsqueeze(1) + index.builder.constant([0, 0, 0, 0], np.int64)


def _areas(boxes: Value) -> Value:
    sides = boxes.slice(2, 4, 1) - boxes.slice(0, 2, 1)
    return sides.take(0, 1) * sides.take(1, 1)


def _intersections(boxes: Value, others: Value) -> Value:
    boxes, others = boxes.unsqueeze(1), others.unsqueeze(0)
    low = boxes.slice(0, 2, 2).maximum(others.slice(0, 2, 2))
    high = boxes.slice(2, 4, 2).minimum(others.slice(2, 4, 2))
    sides = (high - low).maximum(0.0)
    return sides.take(0, 2) * sides.take(1, 2)


def _share(part: Value, whole: Value) -> Value:
    zero = part.builder.constant(0, np.float32)
    return part.builder.where(whole > 0.0, part / whole.maximum(_TINY), zero)


def iou(boxes: Value, others: Value) -> Value:
    """Return the IoU ``[N, M]`` of boxes ``[N, 4]`` and ``[M, 4]``."""
    shared = _intersections(boxes, others)
    return _share(shared, _areas(boxes).unsqueeze(1) + _areas(others).unsqueeze(0) - shared)


def class_agnostic_nms(found: Found, post: PostParts) -> Found:
    """Apply class-agnostic NMS like `sppnet.detect.suppression.without_repeats`, without a threshold."""
    builder = found.boxes.builder
    same = iou(found.boxes, found.boxes) > post.same_box
    if post.inside < 1:
        overlap = _share(_intersections(found.boxes, found.boxes), _areas(found.boxes).unsqueeze(1))
        inside = overlap.maximum(overlap.transpose(1, 0)) >= post.inside
        same = same | (inside & found.labels.unsqueeze(1).equal(found.labels.unsqueeze(0)))
    number = builder.range(found.labels.length())
    better = number.unsqueeze(1) > number.unsqueeze(0)
    rivals = (same & better).cast(np.float32)
    every = number >= 0

    def again(_: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        # A detection remains if no better remaining one is of the same object. Each round determines at least
        # one more detection, from the best to the worst, and the result is final when nothing changes.
        kept = rivals.matmul(states[0].cast(np.float32).unsqueeze(1)).squeeze(1) <= 0.0
        changed = builder.op("Xor", kept, states[0]).cast(np.int64).reduce("Sum") > 0
        return changed, [kept]

    kept = builder.loop([every], again)[0]
    return found.pick(builder.positions(kept))

"""ONNX graphs from feature maps to detections, with a function for each step of `sppnet.detect`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sppnet.export.geometry import GridMap, Size, cells, clip
from sppnet.export.parts import DetectorParts, Linear, RegressionParts
from sppnet.export.pooling import mean_bins, score_max, weight_by_bin
from sppnet.export.value import Value
from sppnet.ops.bins import count_bins
from sppnet.ops.boxes import LARGEST_LOG_RATIO

_LEAST_SIDE = 1e-3  # smallest side of a box to decode, as in sppnet.ops.boxes
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


def detect(maps: list[GridMap], windows: Value, parts: DetectorParts, size: Size) -> Found:
    """Return all detections of an image, by descending probability."""
    found = candidates(windows, score(maps, windows, parts), parts)
    if parts.regression is not None:
        found = regress(maps, found, parts, parts.regression, size)
    builder = windows.builder
    slope, offset = (builder.constant(parts.calibration[:, i], np.float32).take(found.labels) for i in (0, 1))
    merged = merge(replace(found, scores=slope * found.scores + offset), parts)
    return replace(merged, scores=builder.op("Sigmoid", merged.scores))


def score(maps: list[GridMap], boxes: Value, parts: DetectorParts) -> Value:
    """Return decision scores ``[N, K]`` of boxes ``[N, 4]``."""
    builder, levels = boxes.builder, parts.features.levels
    channels = [layer.channels for layer in parts.features.backbone.layers]
    ends = np.cumsum([c * count_bins(levels) for c in channels])
    total = builder.constant(parts.svm.bias, np.float32)
    for fmap, weight in zip(maps, np.split(parts.svm.weight, ends[:-1], axis=1), strict=True):
        total = total + score_max(fmap.values, cells(boxes, fmap), weight, levels)
    return total


def candidates(windows: Value, scores: Value, parts: DetectorParts) -> Found:
    """Return the candidates: the best windows of each class, without near-duplicates."""
    builder = windows.builder
    least, overlap, best, per_class = parts.candidates
    by_class = scores.transpose(1, 0)
    if parts.shapes is None or parts.windows > best:
        # Only the best windows of a class are candidates of it.
        count = builder.constant(best, np.int64).minimum(windows.length())
        values, index = builder.top(by_class, count)
        nothing = builder.constant(least, np.float32) + by_class * 0.0
        by_class = builder.op("ScatterElements", nothing, index, values, axis=1)
    chosen = suppress(windows, by_class, overlap, per_class, least)
    labels, index = chosen.take(1, 1), chosen.take(2, 1)
    flat = labels * windows.length() + index
    found = Found(windows.take(index), by_class.reshape(-1).take(flat), labels)
    if not parts.candidates_per_image:
        return found
    limit = builder.constant(parts.candidates_per_image, np.int64).minimum(labels.length())
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


def regress(
    maps: list[GridMap], found: Found, parts: DetectorParts, regression: RegressionParts, size: Size
) -> Found:
    """Refine the boxes of candidates and update their scores."""
    projected = [
        replace(
            fmap,
            values=(fmap.values - fmap.values.builder.constant(mean, np.float32)).matmul(
                fmap.values.builder.constant(basis, np.float32)
            ),
        )
        for fmap, mean, basis in zip(maps, regression.means, regression.bases, strict=True)
    ]
    boxes, labels, before = found.boxes, found.labels, found.scores
    for _ in range(regression.rounds):
        features = _mean_features(projected, boxes, regression)
        deltas = _of_class(_linear(features, regression.linear, regression), labels, 4)
        if regression.hidden is not None:
            deltas = (deltas + _head(features, labels, regression).slice(0, 4, 1)) / 2.0
        boxes = _decoded(boxes, deltas, size)
    again = _of_class(score(maps, boxes, parts), labels, 1).squeeze(1)
    scores = (before + again) / 2.0
    if regression.hidden is not None:
        features = _mean_features(projected, boxes, regression)
        scores = scores + _head(features, labels, regression).take(4, 1) * parts.iou_weight
    return Found(boxes, scores, labels)


def _mean_features(projected: list[GridMap], boxes: Value, regression: RegressionParts) -> Value:
    """Return mean-pooled features ``[N, bins * C]`` of all layers, bin by bin to avoid a transposition."""
    features: list[Value] = []
    length = count_bins(regression.levels)
    for fmap, basis in zip(projected, regression.bases, strict=True):
        means = mean_bins(fmap.values, cells(boxes, fmap), regression.levels)
        features.append(means.reshape(-1, length * basis.shape[1]))
    return boxes.builder.concat(features, 1)


def _linear(features: Value, model: Linear, regression: RegressionParts) -> Value:
    """Apply a linear model to `_mean_features`; its weights are permuted to their order."""
    widths = [count_bins(regression.levels) * basis.shape[1] for basis in regression.bases]
    parts = np.split(model.weight, np.cumsum(widths)[:-1], axis=1)
    weight = np.concatenate(
        [weight_by_bin(part, regression.levels).reshape(len(part), -1) for part in parts], 1
    )
    return _product(features, Linear(weight, model.bias))


def _product(features: Value, model: Linear) -> Value:
    builder = features.builder
    weight, bias = (builder.constant(v, np.float32) for v in (model.weight.T, model.bias))
    return features.matmul(weight) + bias


def _head(features: Value, labels: Value, regression: RegressionParts) -> Value:
    """Return the outputs ``[N, 5]`` of the IoU head for the class of each box."""
    assert regression.hidden is not None
    assert regression.last is not None
    hidden = features.builder.op("Relu", _linear(features, regression.hidden, regression))
    return _of_class(_product(hidden, regression.last), labels, 5)


def _of_class(outputs: Value, labels: Value, width: int) -> Value:
    """Select the ``[N, width]`` of the class of each box from ``[N, K * width]``."""
    index = labels.unsqueeze(1) * width + outputs.builder.constant(range(width), np.int64)
    return outputs.builder.op("GatherElements", outputs, index, axis=1)


def _decoded(boxes: Value, deltas: Value, size: Size) -> Value:
    """Decode deltas like `sppnet.ops.boxes.decode_deltas` and clip; boxes outside the image do not change."""
    builder = boxes.builder
    low, high = boxes.slice(0, 2, 1), boxes.slice(2, 4, 1)
    centre, sides = (low + high) / 2.0, (high - low).maximum(_LEAST_SIDE)
    goal = centre + deltas.slice(0, 2, 1) * sides
    ratio = deltas.slice(2, 4, 1).maximum(-LARGEST_LOG_RATIO).minimum(LARGEST_LOG_RATIO)
    half = sides * builder.op("Exp", ratio) / 2.0
    inside = clip(builder.concat([goal - half, goal + half], 1), size)
    visible = (inside.slice(2, 4, 1) - inside.slice(0, 2, 1)).reduce("Min", 1, keep=True) >= 1.0
    return builder.where(visible, inside, boxes)


def merge(found: Found, parts: DetectorParts) -> Found:
    """Apply suppression and box voting per class; return detections by descending logit."""
    builder = found.boxes.builder
    number = builder.constant(np.arange(len(parts.names))[:, None], np.int64)
    out = builder.constant(_OUT, np.float32)
    by_class = builder.where(number.equal(found.labels.unsqueeze(0)), found.scores.unsqueeze(0), out)
    kept = found.pick(suppress(found.boxes, by_class, parts.nms, parts.per_class, _OUT).take(2, 1))
    if parts.vote < 1:
        kept = replace(kept, boxes=_vote(kept, found, parts.vote))
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


def class_agnostic_nms(found: Found, parts: DetectorParts) -> Found:
    """Apply class-agnostic NMS like `sppnet.detect.suppression.without_repeats`, without a threshold."""
    builder = found.boxes.builder
    overlap = _share(_intersections(found.boxes, found.boxes), _areas(found.boxes).unsqueeze(1))
    inside = overlap.maximum(overlap.transpose(1, 0)) >= parts.inside
    one_class = found.labels.unsqueeze(1).equal(found.labels.unsqueeze(0))
    same = (iou(found.boxes, found.boxes) > parts.same_box) | (inside & one_class)
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

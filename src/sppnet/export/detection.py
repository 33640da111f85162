"""From feature maps to detections in ONNX: the steps of `sppnet.detect.postprocess`, one function each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sppnet.export.geometry import GridMap, Size, cells, clip
from sppnet.export.graph import Value
from sppnet.export.parts import DetectorParts, Linear, RegressionParts
from sppnet.export.pooling import mean_bins, score_max, weight_by_bin
from sppnet.ops.bins import count_bins
from sppnet.ops.boxes import LARGEST_LOG_RATIO

_LEAST_SIDE = 1e-3  # of a box that deltas move, as in sppnet.ops.boxes
_OUT = -1e30  # the logit of a box in suppression of another class than its own
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Found:
    """Boxes float32 ``[N, 4]``, scores float32 ``[N]`` and labels int64 ``[N]``."""

    boxes: Value
    scores: Value
    labels: Value

    def pick(self, index: Value) -> Found:
        """Those at the positions ``index``."""
        return Found(self.boxes.take(index), self.scores.take(index), self.labels.take(index))


def detect(maps: list[GridMap], windows: Value, parts: DetectorParts, size: Size) -> Found:
    """All detections of an image, best first; scores are probabilities."""
    found = candidates(windows, score(maps, windows, parts), parts)
    if parts.regression is not None:
        found = regress(maps, found, parts, parts.regression, size)
    builder = windows.builder
    slope, offset = (builder.constant(parts.calibration[:, i], np.float32).take(found.labels) for i in (0, 1))
    merged = merge(replace(found, scores=slope * found.scores + offset), parts)
    return replace(merged, scores=builder.op("Sigmoid", merged.scores))


def score(maps: list[GridMap], boxes: Value, parts: DetectorParts) -> Value:
    """Decision scores ``[N, K]`` of boxes ``[N, 4]``."""
    builder, levels = boxes.builder, parts.features.levels
    channels = [layer.channels for layer in parts.features.backbone.layers]
    ends = np.cumsum([c * count_bins(levels) for c in channels])
    total = builder.constant(parts.svm.bias, np.float32)
    for fmap, weight in zip(maps, np.split(parts.svm.weight, ends[:-1], axis=1), strict=True):
        total = total + score_max(fmap.values, cells(boxes, fmap), weight, levels)
    return total


def candidates(windows: Value, scores: Value, parts: DetectorParts) -> Found:
    """Windows that may become detections: the best of each class without near-duplicates."""
    builder = windows.builder
    least, overlap, best, kept = parts.candidates
    by_class = scores.transpose(1, 0)
    if parts.shapes is None or parts.windows > best:
        # What is not among the best windows of a class is no candidate of it.
        count = builder.constant(best, np.int64).minimum(windows.length())
        values, index = builder.top(by_class, count)
        nothing = builder.constant(least, np.float32) + by_class * 0.0
        by_class = builder.op("ScatterElements", nothing, index, values, axis=1)
    chosen = suppress(windows, by_class, overlap, kept, least)
    labels, index = chosen.take(1, 1), chosen.take(2, 1)
    flat = labels * windows.length() + index
    return Found(windows.take(index), by_class.reshape(-1).take(flat), labels)


def suppress(boxes: Value, scores: Value, overlap: float, most: int, least: float) -> Value:
    """int64 ``[n, 3]``: 0, class and position of the boxes that greedy suppression keeps, class by class.

    Args:
        boxes: ``[N, 4]``.
        scores: ``[K, N]``; those of at most ``least`` take no part.
        overlap: a box goes when its IoU with a better kept one is above this.
        most: of a class.
        least: see ``scores``.
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
    """Candidates moved onto their objects and scored again."""
    projected = [
        replace(
            fmap,
            values=(fmap.values - fmap.values.builder.constant(mean, np.float32)).matmul(
                fmap.values.builder.constant(basis, np.float32)
            ),
        )
        for fmap, mean, basis in zip(maps, regression.means, regression.bases, strict=True)
    ]
    boxes, labels = found.boxes, found.labels
    for _ in range(regression.rounds):
        rows = _mean_rows(projected, boxes, regression)
        deltas = _of_class(_linear(rows, regression.linear, regression), labels, 4)
        if regression.hidden is not None:
            deltas = (deltas + _head(rows, labels, regression).slice(0, 4, 1)) / 2.0
        boxes = _moved(boxes, deltas, size)
    again = _of_class(score(maps, boxes, parts), labels, 1).squeeze(1)
    scores = (found.scores + again) / 2.0
    if regression.hidden is not None:
        rows = _mean_rows(projected, boxes, regression)
        scores = scores + _head(rows, labels, regression).take(4, 1) * parts.iou_weight
    return Found(boxes, scores, labels)


def _mean_rows(projected: list[GridMap], boxes: Value, regression: RegressionParts) -> Value:
    """``[N, bins * C]`` of all layers; bin by bin, which saves turning them."""
    rows: list[Value] = []
    length = count_bins(regression.levels)
    for fmap, basis in zip(projected, regression.bases, strict=True):
        means = mean_bins(fmap.values, cells(boxes, fmap), regression.levels)
        rows.append(means.reshape(-1, length * basis.shape[1]))
    return boxes.builder.concat(rows, 1)


def _linear(rows: Value, model: Linear, regression: RegressionParts) -> Value:
    """A linear model on `_mean_rows`, whose columns are turned accordingly."""
    widths = [count_bins(regression.levels) * basis.shape[1] for basis in regression.bases]
    parts = np.split(model.weight, np.cumsum(widths)[:-1], axis=1)
    weight = np.concatenate(
        [weight_by_bin(part, regression.levels).reshape(len(part), -1) for part in parts], 1
    )
    return _product(rows, Linear(weight, model.bias))


def _product(rows: Value, model: Linear) -> Value:
    builder = rows.builder
    weight, bias = (builder.constant(v, np.float32) for v in (model.weight.T, model.bias))
    return rows.matmul(weight) + bias


def _head(rows: Value, labels: Value, regression: RegressionParts) -> Value:
    """The IoU head's answers ``[N, 5]`` for the class of each row."""
    assert regression.hidden is not None
    assert regression.last is not None
    hidden = rows.builder.op("Relu", _linear(rows, regression.hidden, regression))
    return _of_class(_product(hidden, regression.last), labels, 5)


def _of_class(outputs: Value, labels: Value, width: int) -> Value:
    """``[N, K * width]`` to the ``[N, width]`` of each row's class."""
    index = labels.unsqueeze(1) * width + outputs.builder.constant(range(width), np.int64)
    return outputs.builder.op("GatherElements", outputs, index, axis=1)


def _moved(boxes: Value, deltas: Value, size: Size) -> Value:
    """`sppnet.ops.boxes.decode_deltas`, clipped; a box that left the image stays where it was."""
    builder = boxes.builder
    low, high = boxes.slice(0, 2, 1), boxes.slice(2, 4, 1)
    centre, sides = (low + high) / 2.0, (high - low).maximum(_LEAST_SIDE)
    goal = centre + deltas.slice(0, 2, 1) * sides
    ratio = deltas.slice(2, 4, 1).maximum(-LARGEST_LOG_RATIO).minimum(LARGEST_LOG_RATIO)
    half = sides * builder.op("Exp", ratio) / 2.0
    inside = clip(builder.concat([goal - half, goal + half], 1), size)
    seen = (inside.slice(2, 4, 1) - inside.slice(0, 2, 1)).reduce("Min", 1, keep=True) >= 1.0
    return builder.where(seen, inside, boxes)


def merge(found: Found, parts: DetectorParts) -> Found:
    """Suppression and voting class by class, best first; scores are logits."""
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
    """Each kept box as the mean of those of its class that overlap it, by IoU times probability.

    One box after another: a matrix of all pairs would not fit where there are many classes.
    """
    builder = kept.boxes.builder

    def one(i: Value, states: list[Value]) -> tuple[None, list[Value]]:
        here = builder.positions(every.labels.equal(i))
        mine = builder.positions(kept.labels.equal(i))
        voters, boxes = every.pick(here), kept.boxes.take(mine)
        weights = builder.op("Sigmoid", voters.scores)
        overlap = iou(boxes, voters.boxes)
        zero = builder.constant(0, np.float32)
        share = builder.where(overlap >= threshold, overlap, zero) * weights.unsqueeze(0)
        total = share.reduce("Sum", 1, keep=True)
        mean = share.matmul(voters.boxes) / total.maximum(1e-12)
        merged = builder.where(total > 0.0, mean, boxes)
        return None, [builder.op("ScatterElements", states[0], _rows_of(mine), merged, axis=0)]

    last = builder.concat([builder.constant([-1], np.int64), every.labels]).reduce("Max")
    return builder.loop([kept.boxes], one, last + 1)[0]


def _rows_of(index: Value) -> Value:
    """``[n]`` as ``[n, 4]``, the same in every column."""
    return index.unsqueeze(1) + index.builder.constant([0, 0, 0, 0], np.int64)


def _areas(boxes: Value) -> Value:
    sides = boxes.slice(2, 4, 1) - boxes.slice(0, 2, 1)
    return sides.take(0, 1) * sides.take(1, 1)


def _intersections(ours: Value, theirs: Value) -> Value:
    ours, theirs = ours.unsqueeze(1), theirs.unsqueeze(0)
    low = ours.slice(0, 2, 2).maximum(theirs.slice(0, 2, 2))
    high = ours.slice(2, 4, 2).minimum(theirs.slice(2, 4, 2))
    sides = (high - low).maximum(0.0)
    return sides.take(0, 2) * sides.take(1, 2)


def _share(part: Value, whole: Value) -> Value:
    zero = part.builder.constant(0, np.float32)
    return part.builder.where(whole > 0.0, part / whole.maximum(_TINY), zero)


def iou(ours: Value, theirs: Value) -> Value:
    """Intersection over union ``[N, M]`` of boxes ``[N, 4]`` and ``[M, 4]``."""
    shared = _intersections(ours, theirs)
    return _share(shared, _areas(ours).unsqueeze(1) + _areas(theirs).unsqueeze(0) - shared)


def one_answer(found: Found, parts: DetectorParts) -> Found:
    """`sppnet.detect.suppression.without_repeats`, before any threshold: only better ones suppress."""
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
        # A detection stays when no better one that stays is the same object. From the best to the worst each
        # round settles at least one more, and a round without a change has settled all.
        kept = rivals.matmul(states[0].cast(np.float32).unsqueeze(1)).squeeze(1) <= 0.0
        changed = builder.op("Xor", kept, states[0]).cast(np.int64).reduce("Sum") > 0
        return changed, [kept]

    kept = builder.loop([every], again)[0]
    return found.pick(builder.positions(kept))

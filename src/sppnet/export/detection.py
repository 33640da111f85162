"""ONNX graphs from feature maps to detections, with a function for each step of `sppnet.detect`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sppnet.export.cells import GridMap, by_scale
from sppnet.export.geometry import Size, clip
from sppnet.export.parts import CellParts, DetectorParts, FcParts, Linear, PooledParts, ProjectedParts
from sppnet.export.pooling import mean_bins, pool_max, score_max, weight_by_bin
from sppnet.export.suppression import Found, candidates, merge
from sppnet.export.value import Value
from sppnet.ops.bins import count_bins
from sppnet.ops.boxes import LARGEST_LOG_RATIO

_LEAST_SIDE = 1e-3  # smallest side of a box to decode, as in sppnet.ops.boxes
_PIECE = 512  # boxes whose features exist at a time

Layers = Sequence[Sequence[GridMap]]
"""For each layer, its maps, one per scale."""


def detect(maps: Layers, windows: Value, parts: DetectorParts, size: Size) -> Found:
    """Return all detections of an image, by descending probability."""
    post = parts.post
    some = parts.windows.shapes is None or parts.windows.most > post.best
    found = candidates(windows, score(maps, windows, parts), post, some=some)
    if isinstance(parts.regression, ProjectedParts):
        found = _regress_projected(maps, found, parts, parts.regression, size)
    elif parts.regression is not None:
        found = _regress_pooled(maps, found, parts, parts.regression, size)
    builder = windows.builder
    slope, offset = (builder.constant(parts.calibration[:, i], np.float32).take(found.labels) for i in (0, 1))
    merged = merge(replace(found, scores=slope * found.scores + offset), len(parts.names), post)
    return replace(merged, scores=builder.op("Sigmoid", merged.scores))


def score(maps: Layers, boxes: Value, parts: DetectorParts) -> Value:
    """Return decision scores ``[N, K]`` of boxes ``[N, 4]``."""
    if parts.fc is not None:
        return _score_fc(maps, boxes, parts, parts.fc)
    return _score_pooled(maps, boxes, parts, parts.svm)


def _score_pooled(maps: Layers, boxes: Value, parts: DetectorParts, model: Linear) -> Value:
    """Return the outputs of a linear model ``[N, K]`` for the pooled features of boxes."""
    builder, levels = boxes.builder, parts.features.levels
    channels = [layer.channels for layer in parts.features.backbone.layers]
    ends = np.cumsum([c * count_bins(levels) for c in channels])
    total = builder.constant(model.bias, np.float32)
    for number, weight in enumerate(np.split(model.weight, ends[:-1], axis=1)):

        def scores(fmap: GridMap, regions: Value, weight: np.ndarray = weight) -> Value:
            return score_max(fmap.values, regions, weight, levels)

        total = total + by_scale(boxes, maps[number], parts.cells, number, scores)
    return total


def _score_fc(maps: Layers, boxes: Value, parts: DetectorParts, fc: FcParts) -> Value:
    """Return decision scores of the outputs of fully connected layers, some boxes at a time."""
    builder, levels = boxes.builder, parts.features.levels
    models = (*fc.layers, parts.svm)
    constants = [
        tuple(builder.constant(v, np.float32) for v in (model.weight.T, model.bias)) for model in models
    ]

    def some(which: Value) -> Value:
        def pooled(fmap: GridMap, regions: Value) -> Value:
            return pool_max(fmap.values, regions, levels)

        rows = [by_scale(which, maps[i], parts.cells, i, pooled) for i in range(len(maps))]
        values = builder.concat(rows, 1) * fc.scale
        for weight, bias in constants[:-1]:
            values = builder.op("Relu", values.matmul(weight) + bias)
        # Features are stored as float16 in fitting and prediction.
        weight, bias = constants[-1]
        return values.cast(np.float16).cast(np.float32).matmul(weight) + bias

    return _in_pieces(boxes, some, len(parts.names))


def _in_pieces(boxes: Value, compute: Callable[[Value], Value], width: int) -> Value:
    """Return ``compute(boxes)``, float32 ``[N, width]``, computed for some boxes at a time."""
    builder = boxes.builder
    nothing = builder.constant(np.empty((0, width)), np.float32)
    start = builder.op("SequenceConstruct", nothing)

    def body(i: Value, states: list[Value]) -> tuple[None, list[Value]]:
        part = compute(boxes.slice(i * _PIECE, (i + 1) * _PIECE))
        return None, [builder.op("SequenceInsert", states[0], part)]

    count = (boxes.length() + (_PIECE - 1)) / _PIECE
    (pieces,) = builder.loop([start], body, count, (True,))
    return builder.op("ConcatFromSequence", pieces, axis=0)


def _regress_pooled(
    maps: Layers, found: Found, parts: DetectorParts, regression: PooledParts, size: Size
) -> Found:
    """Refine boxes like `sppnet.detect.pooled_boxes.PooledRegressors`."""
    boxes = found.boxes
    for _ in range(parts.post.regressions):
        deltas = _of_class(_score_pooled(maps, boxes, parts, regression.linear), found.labels, 4)
        boxes = clip(_moved(boxes, deltas), size)
    return _rescored(maps, replace(found, boxes=boxes), parts)


def _rescored(maps: Layers, found: Found, parts: DetectorParts) -> Found:
    """Replace decision scores by their means before and after boxes were refined."""
    if not parts.post.rescored:
        return found
    again = _of_class(score(maps, found.boxes, parts), found.labels, 1).squeeze(1)
    return replace(found, scores=(found.scores + again) / 2.0)


def _regress_projected(
    maps: Layers, found: Found, parts: DetectorParts, regression: ProjectedParts, size: Size
) -> Found:
    """Refine boxes and update scores like `sppnet.detect.boxes.ProjectedRegressors`."""
    projected = [
        [_projected(fmap, mean, basis) for fmap in layer]
        for layer, mean, basis in zip(maps, regression.means, regression.bases, strict=True)
    ]
    boxes, labels = found.boxes, found.labels
    for _ in range(parts.post.regressions):
        deltas = _deltas(_mean_features(projected, boxes, regression), labels, regression)
        boxes = _decoded(boxes, deltas, size)
    refined = _rescored(maps, replace(found, boxes=boxes), parts)
    if regression.hidden is None:
        return refined
    hidden = _product(_mean_features(projected, boxes, regression), _by_bin(regression.hidden, regression))
    logits = _head(hidden, labels, regression).take(4, 1)
    return replace(refined, scores=refined.scores + logits * parts.post.iou_weight)


def _projected(fmap: GridMap, mean: np.ndarray, basis: np.ndarray) -> GridMap:
    builder = fmap.values.builder
    centred = fmap.values - builder.constant(mean, np.float32)
    return replace(fmap, values=centred.matmul(builder.constant(basis, np.float32)))


def _mean_features(projected: Layers, boxes: Value, regression: ProjectedParts) -> Value:
    """Return mean-pooled features ``[N, bins * C]`` of all layers, bin by bin to avoid a transposition."""
    features: list[Value] = []
    length = count_bins(regression.levels)
    for number, (layer, basis) in enumerate(zip(projected, regression.bases, strict=True)):

        def means(fmap: GridMap, regions: Value, width: int = basis.shape[1]) -> Value:
            return mean_bins(fmap.values, regions, regression.levels).reshape(-1, length * width)

        features.append(by_scale(boxes, layer, CellParts(), number, means))
    return boxes.builder.concat(features, 1)


def _deltas(features: Value, labels: Value, regression: ProjectedParts) -> Value:
    """Return the deltas ``[N, 4]`` of the class of each box: the means of both regressors."""
    if regression.hidden is None:
        return _of_class(_product(features, _by_bin(regression.linear, regression)), labels, 4)
    # One product for the linear regressor and the hidden layer.
    both = [_by_bin(model, regression) for model in (regression.linear, regression.hidden)]
    weight, bias = (np.concatenate([getattr(model, name) for model in both]) for name in ("weight", "bias"))
    outputs = _product(features, Linear(weight, bias))
    split = len(regression.linear.bias)
    deltas = _of_class(outputs.slice(0, split, 1), labels, 4)
    return (deltas + _head(outputs.slice(split, 2**62, 1), labels, regression).slice(0, 4, 1)) / 2.0


def _by_bin(model: Linear, regression: ProjectedParts) -> Linear:
    """Permute a linear model to the order of `_mean_features`."""
    widths = [count_bins(regression.levels) * basis.shape[1] for basis in regression.bases]
    parts = np.split(model.weight, np.cumsum(widths)[:-1], axis=1)
    weight = np.concatenate(
        [weight_by_bin(part, regression.levels).reshape(len(part), -1) for part in parts], 1
    )
    return Linear(weight, model.bias)


def _product(features: Value, model: Linear) -> Value:
    builder = features.builder
    weight, bias = (builder.constant(v, np.float32) for v in (model.weight.T, model.bias))
    return features.matmul(weight) + bias


def _head(hidden: Value, labels: Value, regression: ProjectedParts) -> Value:
    """Return the outputs ``[N, 5]`` of the IoU head for the class of each box, from its hidden layer."""
    assert regression.last is not None
    return _of_class(_product(hidden.builder.op("Relu", hidden), regression.last), labels, 5)


def _of_class(outputs: Value, labels: Value, width: int) -> Value:
    """Select the ``[N, width]`` of the class of each box from ``[N, K * width]``."""
    index = labels.unsqueeze(1) * width + outputs.builder.constant(range(width), np.int64)
    return outputs.builder.op("GatherElements", outputs, index, axis=1)


def _moved(boxes: Value, deltas: Value) -> Value:
    """Decode deltas like `sppnet.ops.boxes.decode_deltas`."""
    builder = boxes.builder
    low, high = boxes.slice(0, 2, 1), boxes.slice(2, 4, 1)
    centre, sides = (low + high) / 2.0, (high - low).maximum(_LEAST_SIDE)
    goal = centre + deltas.slice(0, 2, 1) * sides
    ratio = deltas.slice(2, 4, 1).maximum(-LARGEST_LOG_RATIO).minimum(LARGEST_LOG_RATIO)
    half = sides * builder.op("Exp", ratio) / 2.0
    return builder.concat([goal - half, goal + half], 1)


def _decoded(boxes: Value, deltas: Value, size: Size) -> Value:
    """Decode deltas and clip; boxes outside the image do not change."""
    inside = clip(_moved(boxes, deltas), size)
    visible = (inside.slice(2, 4, 1) - inside.slice(0, 2, 1)).reduce("Min", 1, keep=True) >= 1.0
    return boxes.builder.where(visible, inside, boxes)

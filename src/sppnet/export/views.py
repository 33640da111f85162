"""ONNX graphs of multi-view testing, like `sppnet.classify.views`."""

from __future__ import annotations

import itertools

import numpy as np
import onnx

from sppnet.export.cells import cells
from sppnet.export.geometry import Size
from sppnet.export.maps import flip, image_features, maps_of, resized_pixels
from sppnet.export.parts import NetworkParts, ViewParts
from sppnet.export.pooling import pool_max
from sppnet.export.value import Value


def mean_probabilities(
    image: Value, size: Size, parts: NetworkParts, network: onnx.ModelProto
) -> tuple[Value, Value]:
    """Return the mean probabilities ``[K]`` over the views, and the features ``[D]`` of the first view.

    Args:
        image: uint8 ``[3, H, W]``.
        size: of the image.
        parts: the network and the views.
        network: the convolutions.
    """
    builder, views = image.builder, parts.views
    features: list[Value] = []
    weights: list[Value] = []
    one = builder.constant([1], np.float32)
    if views.full is not None:
        for pixels, resized in _versions(image, size, views.full, parts):
            features.append(image_features(maps_of(pixels, resized, parts.features, network), parts.features))
            weights.append(one)
    if views.positions != "none":
        for scale in views.scales:
            for pixels, resized in _versions(image, size, scale, parts):
                corners, weight = _corners(resized, views)
                pool = _crops if views.by_crops else _regions
                features += pool(pixels, resized, corners, parts, network)
                weights += [weight] * len(corners)
    rows = builder.stack(features)
    probabilities = builder.op("Softmax", _logits(rows, parts), axis=1)
    weight = builder.concat(weights)
    total = (probabilities * weight.unsqueeze(1)).reduce("Sum", 0)
    return total / weight.reduce("Sum"), rows.take(0)


def _versions(image: Value, size: Size, scale: int, parts: NetworkParts) -> list[tuple[Value, Size]]:
    """Return the resized image and, where views are flipped, the flipped one."""
    pixels, resized = resized_pixels(image, size, scale, parts.features)
    return [(one, resized) for one in ([pixels, flip(pixels)] if parts.views.flip else [pixels])]


def _corners(resized: Size, views: ViewParts) -> tuple[list[tuple[Value, Value]], Value]:
    """Return the top left corners of the views, and the weight ``[1]`` of each.

    Of nine positions some are equal where a side of the image equals that of the view; they count once.
    """
    builder = resized.height.builder
    zero = builder.constant(0, np.int64)
    down, right = resized.height - views.side, resized.width - views.side
    centre = down / 2, right / 2
    one = builder.constant([1], np.float32)
    if views.positions == "centre":
        return [centre], one
    if views.positions == "five":
        return [centre, *itertools.product((zero, down), (zero, right))], one
    corners = list(itertools.product((down / 2, zero, down), (right / 2, zero, right)))
    share = builder.constant(1 / 3, np.float32)
    each = [builder.where(limit.equal(0), share, one.squeeze(0)) for limit in (down, right)]
    return corners, (each[0] * each[1]).unsqueeze(0)


def _crops(
    pixels: Value,
    resized: Size,
    corners: list[tuple[Value, Value]],
    parts: NetworkParts,
    network: onnx.ModelProto,
) -> list[Value]:
    """Return the features ``[D]`` of each view; the network runs on every view."""
    side = parts.views.side
    given = pixels.builder.constant(side, np.int64)
    found: list[Value] = []
    for top, left in corners:
        crop = pixels.slice(top, top + side, 1).slice(left, left + side, 2)
        maps = maps_of(crop, Size(given, given), parts.features, network)
        if parts.last_pool is None:
            found.append(image_features(maps, parts.features))
        else:
            kernel, stride = parts.last_pool
            values = maps[0].values.transpose(2, 0, 1).unsqueeze(0)
            sides = [kernel] * 2, [stride] * 2
            pooled = pixels.builder.op("MaxPool", values, kernel_shape=sides[0], strides=sides[1])
            found.append(pooled.reshape(-1))
    return found


def _regions(
    pixels: Value,
    resized: Size,
    corners: list[tuple[Value, Value]],
    parts: NetworkParts,
    network: onnx.ModelProto,
) -> list[Value]:
    """Return the features ``[D]`` of each view; the network runs once, and views are pooled on its maps."""
    builder, side = pixels.builder, parts.views.side
    boxes = [builder.stack([left, top, left + side, top + side]) for top, left in corners]
    windows = builder.stack(boxes).cast(np.float32)
    maps = maps_of(pixels, resized, parts.features, network)
    pooled = [pool_max(fmap.values, cells(windows, fmap), parts.features.levels) for fmap in maps]
    rows = builder.concat(pooled, 1)
    return [rows.take(i) for i in range(len(corners))]


def _logits(features: Value, parts: NetworkParts) -> Value:
    """Return the logits ``[V, K]`` of features ``[V, D]``."""
    builder = features.builder
    for i, layer in enumerate(parts.layers):
        weight, bias = (builder.constant(v, np.float32) for v in (layer.weight.T, layer.bias))
        features = features.matmul(weight) + bias
        if i < len(parts.layers) - 1:
            features = builder.op("Relu", features)
    return features

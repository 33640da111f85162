"""The exported models: feature extractors, classifiers and detectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import onnx

from sppnet.export.detection import Found, class_agnostic_nms, detect
from sppnet.export.geometry import GridMap, Size, cells, clip, image_input, normalise, resize, resized_size
from sppnet.export.graph import Builder
from sppnet.export.parts import ClassifierParts, DetectorParts, FeatureParts
from sppnet.export.pooling import pool_map, pool_max, pool_mean
from sppnet.export.value import Value
from sppnet.export.windows import dense_windows
from sppnet.ops.bins import count_bins

FORMAT = "1"
_INPUT = "image: uint8 [height, width, 3], RGB, upright, any size"
_BOXES = "boxes: float32 [N, 4], (x0, y0, x1, y1) in pixels of the image"


def feature_model(parts: FeatureParts, network: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model from an image to ``features`` ``[S, D]``, those of the image at S scales."""
    builder = Builder()
    image, size = image_input(builder)
    vectors = [
        image_features(feature_maps(image, size, scale, parts, network), parts, normalised=False)
        for scale in parts.scales
    ]
    length = _length(parts)
    builder.output("features", builder.stack(vectors), [len(vectors), length])
    return builder.model(_metadata("features", parts, _INPUT))


def box_feature_model(parts: FeatureParts, network: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model from an image and boxes ``[N, 4]`` to ``features`` ``[N, D]``."""
    builder = Builder()
    image, size = image_input(builder)
    boxes = builder.input("boxes", np.float32, ["boxes", 4])
    (scale,) = parts.scales
    pool = pool_max if parts.mode == "max" else pool_mean
    vectors = [
        pool(fmap.values, cells(boxes, fmap), parts.levels)
        for fmap in feature_maps(image, size, scale, parts, network)
    ]
    builder.output("features", builder.concat(vectors, 1), ["boxes", _length(parts)])
    return builder.model(_metadata("box-features", parts, f"{_INPUT}; {_BOXES}"))


def classifier_model(parts: ClassifierParts, network: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model from an image to probabilities ``scores`` ``[K]`` and ``features`` ``[D]`` of norm 1."""
    builder = Builder()
    image, size = image_input(builder)
    features = parts.features
    vectors: list[Value] = []
    for scale in features.scales:
        views = [False, True] if parts.flip else [False]
        pooled = [
            image_features(
                feature_maps(image, size, scale, features, network, flipped=flipped),
                features,
                normalised=parts.normalise,
            )
            for flipped in views
        ]
        vectors.append(pooled[0] if len(pooled) == 1 else pooled[0] + pooled[1])
    vector = _unit(builder.concat(vectors))
    weight, bias = (builder.constant(v, np.float32) for v in (parts.svm.weight.T, parts.svm.bias))
    slope, offset = (float(v) for v in parts.calibration)
    logits = (vector.unsqueeze(0).matmul(weight).squeeze(0) + bias) * slope + offset
    builder.output("scores", builder.op("Softmax", logits, axis=0), [len(parts.names)])
    builder.output("features", vector, [len(vectors) * _length(features)])
    return builder.model(_metadata("classifier", features, _INPUT, parts.names))


def detector_model(parts: DetectorParts, network: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model from an image to ``boxes`` ``[N, 4]``, ``scores`` ``[N]`` and ``labels`` ``[N]``.

    Detections of any probability are returned, in descending order; ``threshold`` in the metadata is the
    default of `sppnet.Detector.predict`. ``all_boxes``, ``all_scores`` and ``all_labels`` are the detections
    before class-agnostic NMS, on which metrics are computed.
    """
    builder = Builder()
    image, size = image_input(builder)
    given = _INPUT
    if parts.shapes is None:
        windows = clip(builder.input("boxes", np.float32, ["windows", 4]), size)
        given = f"{_INPUT}; {_BOXES}"
    else:
        windows = dense_windows(size, parts.shapes, parts.window_step, parts.windows)
    (scale,) = parts.features.scales
    maps = feature_maps(image, size, scale, parts.features, network)
    found = detect(maps, windows, parts, size)
    _outputs(builder, "", class_agnostic_nms(found, parts))
    _outputs(builder, "all_", found)
    metadata = _metadata("detector", parts.features, given, parts.names)
    return builder.model({**metadata, "threshold": "0.5"})


def _outputs(builder: Builder, prefix: str, found: Found) -> None:
    count = f"{prefix}detections"
    builder.output(f"{prefix}boxes", found.boxes, [count, 4])
    builder.output(f"{prefix}scores", found.scores, [count])
    builder.output(f"{prefix}labels", found.labels, [count])


def feature_maps(
    image: Value,
    size: Size,
    scale: int,
    parts: FeatureParts,
    network: onnx.ModelProto,
    *,
    flipped: bool = False,
) -> list[GridMap]:
    """Return the feature maps of an image, uint8 ``[H, W, 3]``, at one scale."""
    backbone, builder = parts.backbone, image.builder
    minimum = (backbone.minimum.height, backbone.minimum.width)
    resized = resized_size(size, scale, parts.long_side, minimum, backbone.multiple)
    if flipped:
        image = image.take(size.width - 1 - builder.range(size.width), 1)
    mean, std = (v.detach().cpu().flatten().numpy() for v in (backbone.mean, backbone.std))
    normalised = normalise(resize(image, size, resized), mean, std)
    maps = builder.call(network, normalised, [np.float32] * len(backbone.layers))
    return [
        GridMap(values.squeeze(0).transpose(1, 2, 0), info.grid.stride, info.grid.first, resized, size)
        for values, info in zip(maps, backbone.layers, strict=True)
    ]


def image_features(maps: Sequence[GridMap], parts: FeatureParts, *, normalised: bool) -> Value:
    """Return the feature vector ``[D]`` of one scale, like `sppnet.features.image_rows`."""
    levels = [pool_map(fmap.values, level, parts.mode) for fmap in maps for level in parts.levels]
    return levels[0].builder.concat([_unit(level) if normalised else level for level in levels])


def _unit(vector: Value) -> Value:
    return vector / vector.reduce("L2", keep=True).maximum(1e-12)


def _length(parts: FeatureParts) -> int:
    return sum(layer.channels for layer in parts.backbone.layers) * count_bins(parts.levels)


def _metadata(kind: str, parts: FeatureParts, given: str, names: Sequence[str] = ()) -> dict[str, str]:
    return {
        "sppnet.format": FORMAT,
        "sppnet.version": version("sppnet"),
        "kind": kind,
        "names": json.dumps(list(names), ensure_ascii=False),
        "input": given,
        "backbone": parts.backbone.name,
        "levels": json.dumps(list(parts.levels)),
        "mode": parts.mode,
        "license": "Apache-2.0 (sppnet); the backbone's weights keep their own licence",
    }

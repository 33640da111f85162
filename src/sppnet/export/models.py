"""The exported models: feature extractors, classifiers and detectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import onnx

from sppnet.export.cells import GridMap, by_scale
from sppnet.export.detection import detect
from sppnet.export.geometry import clip, image_input
from sppnet.export.graph import Builder
from sppnet.export.maps import feature_maps, image_features, unit
from sppnet.export.parts import (
    AnyParts,
    CellParts,
    ClassifierParts,
    DetectorParts,
    FeatureParts,
    NetworkParts,
)
from sppnet.export.pooling import pool_max, pool_mean
from sppnet.export.suppression import Found, class_agnostic_nms
from sppnet.export.value import Value
from sppnet.export.views import mean_probabilities
from sppnet.export.windows import dense_windows
from sppnet.ops.bins import count_bins

FORMAT = "1"
_INPUT = "image: uint8 [height, width, 3], RGB, upright, any size"
_BOXES = "boxes: float32 [N, 4], (x0, y0, x1, y1) in pixels of the image"


def whole_model(parts: AnyParts, network: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model of an estimator."""
    if isinstance(parts, DetectorParts):
        return detector_model(parts, network)
    if isinstance(parts, NetworkParts):
        return network_model(parts, network)
    return classifier_model(parts, network)


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
    scales = [feature_maps(image, size, scale, parts, network) for scale in parts.scales]
    pool = pool_max if parts.mode == "max" else pool_mean

    def pooled(fmap: GridMap, regions: Value) -> Value:
        return pool(fmap.values, regions, parts.levels)

    vectors = [
        by_scale(boxes, layer, CellParts(), number, pooled)
        for number, layer in enumerate(zip(*scales, strict=True))
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
    vector = unit(builder.concat(vectors))
    weight, bias = (builder.constant(v, np.float32) for v in (parts.svm.weight.T, parts.svm.bias))
    slope, offset = (float(v) for v in parts.calibration)
    logits = (vector.unsqueeze(0).matmul(weight).squeeze(0) + bias) * slope + offset
    builder.output("scores", builder.op("Softmax", logits, axis=0), [len(parts.names)])
    builder.output("features", vector, [len(vectors) * _length(features)])
    return builder.model(_metadata("classifier", features, _INPUT, parts.names))


def network_model(parts: NetworkParts, network: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model from an image to probabilities ``scores`` ``[K]`` and ``features`` ``[D]``.

    The features are those of the whole image, the input of the first fully connected layer; where the whole
    image is no view, those of the first view.
    """
    builder = Builder()
    image, size = image_input(builder)
    scores, features = mean_probabilities(image, size, parts, network)
    builder.output("scores", scores, [len(parts.names)])
    builder.output("features", features, [parts.layers[0].weight.shape[1]])
    return builder.model(_metadata("classifier", parts.features, _INPUT, parts.names))


def detector_model(parts: DetectorParts, network: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model from an image to ``boxes`` ``[N, 4]``, ``scores`` ``[N]`` and ``labels`` ``[N]``.

    Detections of any probability are returned, in descending order; ``threshold`` in the metadata is the
    default of `sppnet.Detector.predict`. ``all_boxes``, ``all_scores`` and ``all_labels`` are the detections
    before class-agnostic NMS, on which metrics are computed.
    """
    builder = Builder()
    image, size = image_input(builder)
    windows, metadata = parts.windows, _metadata("detector", parts.features, _INPUT, parts.names)
    if windows.shapes is None:
        given = builder.input("proposals", np.float32, ["windows", 4])
        proposals = clip(given.slice(0, windows.most), size)
        metadata |= {"input": f"{_INPUT}; proposals{_BOXES[5:]}", "proposals": windows.source}
    else:
        proposals = dense_windows(size, windows.shapes, windows.step, windows.most)
    scales = [feature_maps(image, size, scale, parts.features, network) for scale in parts.features.scales]
    found = detect(list(zip(*scales, strict=True)), proposals, parts, size)
    _outputs(builder, "", class_agnostic_nms(found, parts.post))
    _outputs(builder, "all_", found)
    return builder.model({**metadata, "threshold": f"{parts.post.threshold:g}"})


def _outputs(builder: Builder, prefix: str, found: Found) -> None:
    count = f"{prefix}detections"
    builder.output(f"{prefix}boxes", found.boxes, [count, 4])
    builder.output(f"{prefix}scores", found.scores, [count])
    builder.output(f"{prefix}labels", found.labels, [count])


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

"""ONNX graphs from an image to feature maps, and the features of whole maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from sppnet.export.cells import GridMap
from sppnet.export.geometry import (
    Size,
    bounded_shape,
    normalise,
    resize,
    resize_antialiased,
    resized_size,
)
from sppnet.export.parts import FeatureParts
from sppnet.export.pooling import pool_map
from sppnet.export.value import Value


def feature_maps(
    image: Value,
    size: Size,
    scale: int,
    parts: FeatureParts,
    network: onnx.ModelProto,
    *,
    flipped: bool = False,
) -> list[GridMap]:
    """Return the feature maps of an image, uint8 ``[3, H, W]``, at one scale, layer by layer."""
    image = flip(image) if flipped else image
    pixels, resized = resized_pixels(image, size, scale, parts)
    return [replace(fmap, image=size) for fmap in maps_of(pixels, resized, parts, network)]


def flip(image: Value) -> Value:
    """Reverse ``[C, H, W]`` left to right."""
    number = image.builder.range(image.length(2))
    return image.take(image.length(2) - number - 1, 2)


def resized_pixels(image: Value, size: Size, scale: int, parts: FeatureParts) -> tuple[Value, Size]:
    """Return the input of the network before normalisation, ``[3, H, W]`` in 0..1, and its size."""
    backbone = parts.backbone
    minimum = (backbone.minimum.height, backbone.minimum.width)
    shape = bounded_shape(size, parts.longest_shape)
    resized = resized_size(shape, scale, parts.long_side, minimum, backbone.multiple)
    method = resize_antialiased if parts.antialias else resize
    return method(image, size, resized), resized


def maps_of(pixels: Value, size: Size, parts: FeatureParts, network: onnx.ModelProto) -> list[GridMap]:
    """Run the network on ``[3, H, W]`` in 0..1, and return its maps, layer by layer."""
    backbone = parts.backbone
    mean, std = (v.detach().cpu().flatten().numpy() for v in (backbone.mean, backbone.std))
    given = normalise(pixels, mean, std)
    maps = pixels.builder.call(network, given, [np.float32] * len(backbone.layers))
    cells = [_rounded(values, parts).squeeze(0).transpose(1, 2, 0) for values in maps]
    return [
        GridMap(values, info.grid.stride, info.grid.first, size, size)
        for values, info in zip(cells, backbone.layers, strict=True)
    ]


def _rounded(values: Value, parts: FeatureParts) -> Value:
    """Round to bfloat16 if the estimator does."""
    if not parts.rounded:
        return values
    half = values.builder.op("Cast", values, to=onnx.TensorProto.BFLOAT16)
    return values.builder.op("Cast", half, to=onnx.TensorProto.FLOAT)


def image_features(maps: Sequence[GridMap], parts: FeatureParts, *, normalised: bool = False) -> Value:
    """Return the feature vector ``[D]`` of one scale, like `sppnet.features.image_rows`."""
    levels = [pool_map(fmap.values, level, parts.mode) for fmap in maps for level in parts.levels]
    return levels[0].builder.concat([unit(level) if normalised else level for level in levels])


def unit(vector: Value) -> Value:
    """Divide a vector by its norm."""
    return vector / vector.reduce("L2", keep=True).maximum(1e-12)

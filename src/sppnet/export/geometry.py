"""ONNX graphs of sizes and resizing: the formulas of `sppnet.features` for dynamic sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppnet.export.graph import Builder
from sppnet.export.value import Value


@dataclass(frozen=True)
class Size:
    """Height and width, int64 ``[]`` each."""

    height: Value
    width: Value

    @property
    def short_side(self) -> Value:
        """The smaller of height and width."""
        return self.height.minimum(self.width)


def _nearest(numerator: Value, denominator: Value) -> Value:
    """Round a quotient to the nearest integer; halves are rounded up."""
    return (numerator * 2 + denominator) / (denominator * 2)


def bounded_shape(size: Size, longest: int | None) -> Size:
    """Limit the long side to ``longest`` short sides, like `sppnet.classify.samples.bounded_shape`."""
    if longest is None:
        return size
    limit = size.short_side * longest
    return Size(size.height.minimum(limit), size.width.minimum(limit))


def resized_size(
    size: Size, scale: int, long_side: int | None, minimum: tuple[int, int], multiple: int
) -> Size:
    """Return the input size like `sppnet.features.resized_size`; a scale of 0 keeps the size of the image."""
    builder = size.height.builder
    base = size.short_side
    side = builder.constant(scale, np.int64) if scale else base
    longest = size.height.maximum(size.width)
    if long_side is not None:
        limit = builder.constant(long_side, np.int64)
        over = _nearest(longest * side, base) > limit
        side, base = builder.where(over, limit, side), builder.where(over, longest, base)
    height, width = (
        (_nearest(length * side, base * multiple) * multiple).maximum(least)
        for length, least in zip((size.height, size.width), minimum, strict=True)
    )
    return Size(height, width)


def resize(pixels: Value, size: Size, resized: Size) -> Value:
    """Resize uint8 ``[3, H, W]`` bilinearly to float32 in 0..1, equal to torch up to the last bits.

    The operator Resize of ONNX rounds source coordinates to float32 early, an error of 6e-5 pixels at 1,000
    pixels. Here they are rounded once.
    """
    builder = pixels.builder
    same = resized.height.equal(size.height) & resized.width.equal(size.width)
    return builder.choose(
        same, lambda: pixels.cast(np.float32) / 255.0, lambda: _interpolated(pixels, size, resized)
    )


def _interpolated(pixels: Value, size: Size, resized: Size) -> Value:
    builder = pixels.builder
    image = pixels
    for axis, (before, after) in enumerate(((size.height, resized.height), (size.width, resized.width)), 1):
        scale = (before.cast(np.float32) / after.cast(np.float32)).cast(np.float64)
        source = (builder.range(after).cast(np.float64) + 0.5) * scale - 0.5
        source = source.cast(np.float32).maximum(0.0)
        low = source.cast(np.int64).minimum(before - 1)
        share = (source - low.cast(np.float32)).minimum(1.0)
        rest = builder.constant(1, np.float32) - share
        if axis == 1:
            share, rest = (weight.unsqueeze(1) / 255.0 for weight in (share, rest))
        near = image.take(low, axis).cast(np.float32)
        far = image.take((low + 1).minimum(before - 1), axis).cast(np.float32)
        image = near * rest + far * share
    return image


def resize_antialiased(pixels: Value, size: Size, resized: Size) -> Value:
    """Resize like `resize`, but average the pixels that shrinking skips, as torch does with ``antialias``."""
    rows = _averages(size.height, resized.height)  # [h, H]
    columns = _averages(size.width, resized.width)  # [w, W]
    return rows.matmul(pixels.cast(np.float32) / 255.0).matmul(columns.transpose(1, 0))


def _averages(before: Value, after: Value) -> Value:
    """Return the weights ``[after, before]`` of a triangular filter, rounded where torch rounds them."""
    builder = before.builder
    scale = before.cast(np.float32) / after.cast(np.float32)
    inverse = (builder.constant(1, np.float32) / scale.maximum(1.0)).cast(np.float64)
    centre = (scale.cast(np.float64) * (builder.range(after).cast(np.float64) + 0.5)).cast(np.float32)
    away = builder.range(before).cast(np.float32).unsqueeze(0) - centre.unsqueeze(1)
    away = builder.op("Abs", ((away.cast(np.float64) + 0.5) * inverse).cast(np.float32))
    weight = (builder.constant(1, np.float32) - away).maximum(0.0)
    return weight / weight.reduce("Sum", 1, keep=True)


def normalise(image: Value, mean: np.ndarray, std: np.ndarray) -> Value:
    """Normalise ``[3, H, W]`` in 0..1 to the input ``[1, 3, H, W]`` of the network."""
    builder = image.builder
    factor, shift = 1 / std.astype(np.float64), -mean.astype(np.float64) / std
    scaled = image * builder.constant(factor[:, None, None], np.float32)
    return (scaled + builder.constant(shift[:, None, None], np.float32)).unsqueeze(0)


def clip(boxes: Value, size: Size) -> Value:
    """Clip float32 boxes ``[N, 4]`` to the image."""
    sides = [size.width, size.height] * 2
    return boxes.maximum(0.0).minimum(boxes.builder.stack(sides).cast(np.float32))


def image_input(builder: Builder) -> tuple[Value, Size]:
    """Add the input ``image``, uint8 RGB ``[H, W, 3]``, and return it as ``[3, H, W]`` with its size."""
    image = builder.input("image", np.uint8, ["height", "width", 3])
    return image.transpose(2, 0, 1), Size(image.length(0), image.length(1))

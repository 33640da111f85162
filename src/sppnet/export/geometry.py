"""ONNX graphs of sizes, resizing and cells: the formulas of `sppnet.features` for dynamic sizes."""

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


@dataclass(frozen=True)
class GridMap:
    """A feature map and the grid of its cells.

    Attributes:
        values: float32 ``[H, W, C]``.
        stride: distance of two cells in pixels of the input of the network.
        first: the centre of the first cell.
        resized: the size of the input of the network.
        image: the size of the image.
    """

    values: Value
    stride: float
    first: float
    resized: Size
    image: Size


def _nearest(numerator: Value, denominator: Value) -> Value:
    """Round a quotient to the nearest integer; halves are rounded up."""
    return (numerator * 2 + denominator) / (denominator * 2)


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
    """Resize uint8 ``[H, W, 3]`` bilinearly to float32 in 0..1, equal to torch up to the last bits.

    The operator Resize of ONNX rounds source coordinates to float32 early, an error of 6e-5 pixels at 1,000
    pixels. Here they are rounded once.
    """
    builder = pixels.builder
    image = pixels
    for axis, (before, after) in enumerate(((size.height, resized.height), (size.width, resized.width))):
        scale = (before.cast(np.float32) / after.cast(np.float32)).cast(np.float64)
        source = (builder.range(after).cast(np.float64) + 0.5) * scale - 0.5
        source = source.cast(np.float32).maximum(0.0)
        low = source.cast(np.int64).minimum(before - 1)
        share = (source - low.cast(np.float32)).minimum(1.0).unsqueeze(*((1, 2) if axis == 0 else (1,)))
        near = image.take(low, axis).cast(np.float32)
        far = image.take((low + 1).minimum(before - 1), axis).cast(np.float32)
        if axis == 0:
            near, far = near / 255.0, far / 255.0
        image = near * (builder.constant(1, np.float32) - share) + far * share
    return image


def normalise(image: Value, mean: np.ndarray, std: np.ndarray) -> Value:
    """Normalise ``[H, W, 3]`` in 0..1 to the input ``[1, 3, H, W]`` of the network."""
    builder = image.builder
    normalised = (image - builder.constant(mean, np.float32)) / builder.constant(std, np.float32)
    return normalised.transpose(2, 0, 1).unsqueeze(0)


def cells(boxes: Value, fmap: GridMap) -> Value:
    """Return the regions, int64 ``[N, 4]``, of float32 boxes ``[N, 4]``, like `sppnet.features.cells`."""
    x0, y0, x1, y1 = (boxes.cast(np.float64).take(i, 1) for i in range(4))
    left, right = _axis(x0, x1, fmap.resized.width, fmap.image.width, fmap, fmap.values.length(1))
    top, bottom = _axis(y0, y1, fmap.resized.height, fmap.image.height, fmap, fmap.values.length(0))
    return boxes.builder.stack([left, top, right, bottom], 1)


def _axis(
    low: Value, high: Value, resized: Value, original: Value, fmap: GridMap, count: Value
) -> tuple[Value, Value]:
    builder = low.builder
    zero = builder.constant(0, np.float64)
    side, scale, last = (v.cast(np.float64) for v in (original, resized, count))
    step, offset = side * fmap.stride, side * fmap.first

    def first_at(edge: Value) -> Value:
        found = zero - _floor_quotient(offset - edge * scale, step)
        return found.maximum(0.0).minimum(last)

    start, stop = first_at(low), first_at(high)
    middle = (low + high) * scale - offset * 2.0 + step
    nearest = _floor_quotient(middle, step * 2.0).maximum(0.0).minimum(last - 1.0)
    empty = stop <= start
    start, stop = builder.where(empty, nearest, start), builder.where(empty, nearest + 1.0, stop)
    return start.cast(np.int64), stop.cast(np.int64)


def _floor_quotient(numerator: Value, denominator: Value) -> Value:
    """Return floor(numerator / denominator), corrected for the rounding of the quotient."""
    whole = (numerator / denominator).floor()
    low = ((whole + 1.0) * denominator <= numerator).cast(np.float64)
    return whole + low - (whole * denominator > numerator).cast(np.float64)


def clip(boxes: Value, size: Size) -> Value:
    """Clip float32 boxes ``[N, 4]`` to the image."""
    sides = [size.width, size.height] * 2
    return boxes.maximum(0.0).minimum(boxes.builder.stack(sides).cast(np.float32))


def image_input(builder: Builder) -> tuple[Value, Size]:
    """Add the input ``image``, uint8 RGB ``[H, W, 3]``, and return it with its size."""
    image = builder.input("image", np.uint8, ["height", "width", 3])
    return image, Size(image.length(0), image.length(1))

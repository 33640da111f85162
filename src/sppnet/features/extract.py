"""From an image to its feature maps, at one scale or several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sppnet.backbones import Backbone
from sppnet.errors import UserError
from sppnet.structures import FeatureMap, FeatureMaps, ImageSize


def resized_size(
    size: ImageSize, scale: int | None, backbone: Backbone, long_side: int | None = None
) -> ImageSize:
    """The size of the network's input for an image of ``size``.

    The rounding rule, in integers: the short side becomes ``scale`` and the other keeps the shape,
    rounded to the nearest pixel (halves up).

    Args:
        size: the image's.
        scale: the short side wanted; None keeps the image's own.
        backbone: inputs smaller than its minimum are enlarged to it, and where it needs sides of some
            multiple they are rounded to the nearest.
        long_side: the long side is at most this; the short one then falls below ``scale``.
    """
    side, base = scale or size.short_side, size.short_side
    longest = max(size.height, size.width)
    if long_side is not None and _nearest(longest * side, base) > long_side:
        side, base = long_side, longest
    step = backbone.multiple
    height, width = (step * _nearest(length * side, base * step) for length in (size.height, size.width))
    return ImageSize(max(height, backbone.minimum.height), max(width, backbone.minimum.width))


def _nearest(numerator: int, denominator: int) -> int:
    """The nearest whole number to a quotient; halves up."""
    return (2 * numerator + denominator) // (2 * denominator)


def resize(images: Tensor, size: ImageSize, *, antialias: bool = False) -> Tensor:
    """Bilinear resizing of ``[B, 3, H, W]``; with ``antialias``, shrinking averages what it skips.

    The released code does not antialias (SPP_net release, spp_features_convX.m).
    """
    if images.shape[2:] == (size.height, size.width):
        return images
    return functional.interpolate(
        images, (size.height, size.width), mode="bilinear", align_corners=False, antialias=antialias
    )


def extract_batch(
    backbone: Backbone,
    images: Sequence[Tensor],
    scales: Sequence[int] | None = None,
    *,
    antialias: bool = False,
    long_side: int | None = None,
    image_size: ImageSize | None = None,
) -> list[FeatureMaps]:
    """The feature maps of several images of one size, without gradients.

    Args:
        backbone: the network; the images are moved to its device.
        images: float ``[3, H, W]`` each, RGB, 0..1, all of one size.
        scales: short sides to resize to, in pixels; None runs the image at its own size. Inputs smaller
            than the network's minimum are enlarged to it.
        antialias: average skipped pixels when shrinking; the paper's code does not.
        long_side: limit of the resized long side; None sets none, as in the paper.
        image_size: of the images as they are stored, where they were averaged down on reading; boxes refer
            to it. None is the size of the tensors.

    Returns:
        One ``FeatureMaps`` an image, scales ascending, on the backbone's device and in its precision.

    Raises:
        UserError: images of other shapes or several sizes, or a scale below 1.
    """
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise UserError(f"images[{i}]", "a tensor [3, H, W]", f"shape {list(image.shape)}")
        if image.shape != images[0].shape:
            wanted = f"the size of the first image, {list(images[0].shape)}"
            raise UserError(f"images[{i}]", wanted, list(image.shape), "Sort the images into batches by size")
    if scales is not None and (not scales or min(scales) < 1):
        raise UserError("scales", "at least one short side, each at least 1 pixel", list(scales))
    if not images:
        return []
    size = image_size or ImageSize(images[0].shape[1], images[0].shape[2])
    batch = torch.stack(list(images)).to(backbone.device, torch.float32, memory_format=torch.channels_last)
    maps: list[list[FeatureMap]] = [[] for _ in images]
    with torch.inference_mode():
        for scale in [None] if scales is None else sorted(set(scales)):
            resized = resized_size(size, scale, backbone, long_side)
            outputs = backbone(resize(batch, resized, antialias=antialias))
            for info, output in zip(backbone.layers, outputs, strict=True):
                for i, values in enumerate(output):
                    maps[i].append(FeatureMap(values, info.name, info.grid, resized, size))
    return [FeatureMaps(tuple(m)) for m in maps]


def extract(
    backbone: Backbone,
    image: Tensor,
    scales: Sequence[int] | None = None,
    *,
    antialias: bool = False,
    long_side: int | None = None,
    image_size: ImageSize | None = None,
) -> FeatureMaps:
    """The feature maps of one image ``[3, H, W]``; everything as in ``extract_batch``."""
    return extract_batch(
        backbone, [image], scales, antialias=antialias, long_side=long_side, image_size=image_size
    )[0]

"""Feature maps of images, at one or several scales."""

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
    """Compute the size of the network's input for an image of ``size``, in integers.

    The short side becomes ``scale``. The long side preserves the aspect ratio, rounded to the nearest pixel
    (halves up).

    Args:
        size: size of the image.
        scale: short side of the input in pixels; None keeps that of the image.
        backbone: its minimum input size and, if it requires one, the multiple of the sides apply.
        long_side: maximum long side in pixels; the short side may then be less than ``scale``.

    Returns:
        The size of the input.

    Examples:
        >>> from sppnet.backbones import load_backbone
        >>> resized_size(ImageSize(480, 640), 240, load_backbone("builtin"))
        ImageSize(height=240, width=320)
    """
    side, base = scale or size.short_side, size.short_side
    longest = max(size.height, size.width)
    if long_side is not None and _nearest(longest * side, base) > long_side:
        side, base = long_side, longest
    step = backbone.multiple
    height, width = (step * _nearest(length * side, base * step) for length in (size.height, size.width))
    return ImageSize(max(height, backbone.minimum.height), max(width, backbone.minimum.width))


def _nearest(numerator: int, denominator: int) -> int:
    """Round a quotient to the nearest integer, halves up."""
    return (2 * numerator + denominator) // (2 * denominator)


def resize(images: Tensor, size: ImageSize, *, antialias: bool = False) -> Tensor:
    """Resize images ``[B, 3, H, W]`` bilinearly; ``antialias`` averages skipped pixels when shrinking.

    The released code does not antialias (SPP_net release, spp_features_convX.m).

    Args:
        images: ``[B, 3, H, W]``, floating.
        size: the new size.
        antialias: average skipped pixels when shrinking.

    Returns:
        ``[B, 3, size.height, size.width]``.

    Examples:
        >>> resize(torch.zeros(1, 3, 8, 8), ImageSize(4, 6)).shape
        torch.Size([1, 3, 4, 6])
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
    """Compute the feature maps of several images of one size, without gradients.

    Args:
        backbone: the network; the images are moved to its device.
        images: float ``[3, H, W]`` each, RGB, 0..1, all of one size.
        scales: short sides to resize to, in pixels; None for the size of the image. Inputs smaller than
            the minimum of the network are enlarged.
        antialias: average skipped pixels when shrinking, unlike the released code.
        long_side: maximum long side after resizing; None for no limit, as in the paper.
        image_size: size of the stored image, to which boxes refer, if the image was reduced on reading.
            None for the size of the tensors.

    Returns:
        One ``FeatureMaps`` per image, scales ascending, on the device and in the precision of the backbone.

    Raises:
        UserError: images have other shapes or several sizes, or a scale is below 1.

    Examples:
        >>> from sppnet.backbones import load_backbone
        >>> maps = extract_batch(load_backbone("builtin"), [torch.zeros(3, 64, 96)] * 2)
        >>> len(maps), maps[0].layers
        (2, ('stride8', 'stride16', 'stride32'))
    """
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise UserError(f"images[{i}]", "a tensor [3, H, W]", f"shape {list(image.shape)}")
        if image.shape != images[0].shape:
            expected = f"the size of the first image, {list(images[0].shape)}"
            raise UserError(f"images[{i}]", expected, list(image.shape), "Batch images of equal size.")
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
    """Compute the feature maps of one image ``[3, H, W]``; arguments and errors as for `extract_batch`.

    Examples:
        >>> from sppnet.backbones import load_backbone
        >>> maps = extract(load_backbone("builtin"), torch.zeros(3, 64, 96), scales=[64, 128])
        >>> [tuple(fmap.values.shape[1:]) for fmap in maps.of_layer("stride16")]
        [(4, 6), (8, 12)]
    """
    return extract_batch(
        backbone, [image], scales, antialias=antialias, long_side=long_side, image_size=image_size
    )[0]

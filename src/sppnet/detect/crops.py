"""Features by R-CNN: each proposal is cropped, warped and passed through the network.

Network, pyramid and heads are the same as for pooling from maps, so that only the order of cropping and
convolving differs (R-CNN, Girshick et al. 2014, section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sppnet.backbones import Backbone
from sppnet.detect.crop_options import CropOptions
from sppnet.errors import UserError
from sppnet.ops import spatial_pyramid_pool
from sppnet.ops.pyramid import LEVELS
from sppnet.structures import Boxes


def crop_windows(image: Tensor, boxes: Boxes, fill: Tensor, options: CropOptions | None = None) -> Tensor:
    """Crop proposals with context and warp them to a square (R-CNN, Girshick et al. 2014, section 2.2).

    Each box is enlarged about its centre by side / (side - 2 padding) and rounded to whole pixels. The part
    of it inside the image is resized anisotropically (bilinear, no antialiasing); the rest of the crop is
    ``fill``.

    Args:
        image: float ``[3, H, W]``.
        boxes: ``[N, 4]`` on the image.
        fill: ``[3]``; the mean of the network, which is 0 after normalisation.
        options: ``side`` and ``padding`` are used; ``CropOptions()`` by default.

    Returns:
        ``[N, 3, side, side]``, channels last, on the device of the image.

    Raises:
        UserError: the boxes belong to an image of another size.
    """
    options = options or CropOptions()
    height, width = image.shape[1:]
    if (boxes.size.height, boxes.size.width) != (height, width):
        raise UserError("boxes.size", f"the image's size, {height} x {width}", boxes.size)
    side = options.side
    crops = fill.to(image).view(1, 3, 1, 1).repeat(len(boxes), 1, side, side)
    crops = crops.contiguous(memory_format=torch.channels_last)
    middle = (boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2
    half = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]) / 2 * (side / (side - 2 * options.padding))
    grown = torch.cat([middle - half, middle + half], 1).round().long().tolist()
    for crop, (x0, y0, x1, y1) in zip(crops, grown, strict=True):
        columns, rows = _slices(x0, x1, width, side), _slices(y0, y1, height, side)
        if columns is None or rows is None:
            continue
        part = image[None, :, rows[0], columns[0]]
        size = (rows[1].stop - rows[1].start, columns[1].stop - columns[1].start)
        warped = functional.interpolate(part, size, mode="bilinear", align_corners=False)
        crop[:, rows[1], columns[1]] = warped[0]
    return crops


def _slices(low: int, high: int, length: int, side: int) -> tuple[slice, slice] | None:
    """Return the pixels of the image and of the crop along one axis; None if they do not overlap."""
    high = max(high, low + 1)
    start, stop = max(low, 0), min(high, length)
    if start >= stop:
        return None
    factor = side / (high - low)
    first = min(round((start - low) * factor), side - 1)
    last = max(round((stop - low) * factor), first + 1)
    return slice(start, stop), slice(first, last)


def iter_crop_maps(
    network: Backbone, image: Tensor, boxes: Boxes, options: CropOptions | None = None
) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """Yield the maps of the crops of all proposals in batches; arguments as for `pool_crops`.

    Yields:
        The slice of the proposals, and maps ``[n, C, h, w]`` per layer.
    """
    options = options or CropOptions()
    image = image.to(network.device, torch.float32)
    fill = network.mean.flatten()
    for start in range(0, len(boxes), options.batch):
        piece = slice(start, min(start + options.batch, len(boxes)))
        crops = crop_windows(image, boxes[piece], fill, options)
        with torch.inference_mode():
            yield piece, network(crops)


def pool_crops(
    network: Backbone,
    image: Tensor,
    boxes: Boxes,
    levels: tuple[int, ...] = LEVELS,
    options: CropOptions | None = None,
) -> Tensor:
    """Compute the features of proposals by pyramid pooling of the maps of their crops.

    Args:
        network: the network.
        image: float ``[3, H, W]``, RGB, 0..1.
        boxes: ``[N, 4]`` on the image.
        levels: bins along each side of each level of the pyramid.
        options: options of the crops; ``CropOptions()`` by default.

    Returns:
        float32 ``[N, D]``, in the order of `sppnet.features.pool_rows`.

    Raises:
        UserError: the boxes belong to an image of another size, or crops are smaller than the minimum input
            of the network.
    """
    length = sum(layer.channels for layer in network.layers) * sum(n * n for n in levels)
    features = torch.empty(len(boxes), length, device=network.device)
    for piece, maps in iter_crop_maps(network, image, boxes, options):
        parts = [spatial_pyramid_pool(one, levels).float() for one in maps]
        features[piece] = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return features

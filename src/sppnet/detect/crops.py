"""R-CNN's way to the same rows: each window is cropped, warped and run through the network by itself.

Everything else - the network, its pyramid, the heads - is what pooling from maps has, so that only the
order of cropping and convolving differs (R-CNN, section 2.2).
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
    """Windows cut out with context and warped to one square size (R-CNN, section 2.2).

    Each window grows about its centre by side / (side - 2 padding) and is rounded to whole pixels; the
    part of it on the image is resized without keeping its shape (bilinear, no antialiasing) and laid
    where it belongs in the crop. The rest of the crop is ``fill``.

    Args:
        image: float ``[3, H, W]``.
        boxes: N windows on it.
        fill: ``[3]``; the network's mean, which normalising turns into 0.
        options: side and padding count; ``CropOptions()`` by default.

    Returns:
        ``[N, 3, side, side]``, channels last, on the image's device.

    Raises:
        UserError: boxes of an image of another size.
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
        columns, rows = _place(x0, x1, width, side), _place(y0, y1, height, side)
        if columns is None or rows is None:
            continue
        part = image[None, :, rows[0], columns[0]]
        size = (rows[1].stop - rows[1].start, columns[1].stop - columns[1].start)
        warped = functional.interpolate(part, size, mode="bilinear", align_corners=False)
        crop[:, rows[1], columns[1]] = warped[0]
    return crops


def _place(low: int, high: int, length: int, side: int) -> tuple[slice, slice] | None:
    """Along one axis: which pixels of the image, and where in the crop; None where nothing is on it."""
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
    """The network's maps of every window, a batch at a time.

    Yields:
        The windows' positions, and ``[n, C, h, w]`` a layer.
    """
    options = options or CropOptions()
    image = image.to(network.device, torch.float32)
    fill = network.mean.flatten()
    for start in range(0, len(boxes), options.batch):
        piece = slice(start, min(start + options.batch, len(boxes)))
        crops = crop_windows(image, boxes[piece], fill, options)
        with torch.inference_mode():
            yield piece, network(crops)


def crop_rows(
    network: Backbone,
    image: Tensor,
    boxes: Boxes,
    levels: tuple[int, ...] = LEVELS,
    options: CropOptions | None = None,
) -> Tensor:
    """One row a window: the pyramid of the map of its crop, layer after layer.

    Args:
        network: whose layers are pooled.
        image: float ``[3, H, W]``, RGB, 0..1.
        boxes: N windows on it.
        levels: bins along each side of each level of the pyramid.
        options: of the crops; ``CropOptions()`` by default.

    Returns:
        float32 ``[N, D]``, laid out as `sppnet.features.pool_rows` lays its rows.

    Raises:
        UserError: boxes of an image of another size, or crops smaller than the network takes.
    """
    length = sum(layer.channels for layer in network.layers) * sum(n * n for n in levels)
    rows = torch.empty(len(boxes), length, device=network.device)
    for piece, maps in iter_crop_maps(network, image, boxes, options):
        parts = [spatial_pyramid_pool(one, levels).float() for one in maps]
        rows[piece] = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return rows

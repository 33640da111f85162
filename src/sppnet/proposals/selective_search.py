"""Selective search by OpenCV, in a deterministic order."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.errors import MissingExtraError, UserError
from sppnet.structures import Boxes, ImageSize, Proposals


def selective_search(image: Tensor | NDArray[np.uint8], k: int = 50, min_side: float = 20) -> Proposals:
    """Compute proposals by selective search in its fast mode, about 2,000 per image in one or more seconds.

    The paper uses the fast mode (He et al. 2015, section 4.1). The settings are those of the SPP_net release,
    selective_search_boxes.m: colour spaces HSV and Lab; similarities colour + texture + size + fill and
    texture + size + fill; initial segmentations at ``k`` and ``2 * k`` with sigma 0.8; the image is not
    resized. Boxes are sorted by (x0, y0, x1, y1), because the order of OpenCV changes between calls.

    Args:
        image: float32 ``[3, H, W]``, RGB, 0..1, or uint8 ``[H, W, 3]`` in RGB or ``[H, W]`` in grey.
        k: coarseness of the initial segmentation, at least 1.
        min_side: minimum width and height in pixels.

    Returns:
        Unique boxes with scores of 0; none if the image is too small.

    Raises:
        MissingExtraError: OpenCV's contributed modules are not installed.
        UserError: the image has another shape or dtype, or ``k`` is below 1.

    Examples:
        >>> selective_search(np.zeros((240, 320, 3), np.uint8))  # doctest: +SKIP
    """
    if k < 1:
        raise UserError("k", "at least 1", k)
    pixels = _bgr(image)
    search: Any = _segmentation().createSelectiveSearchSegmentation()
    search.setBaseImage(pixels)
    search.switchToSelectiveSearchFast(k, k, 0.8)
    found = np.asarray(search.process(), dtype=np.int64).reshape(-1, 4)
    large = found[(found[:, 2] >= min_side) & (found[:, 3] >= min_side)]
    corners = np.concatenate([large[:, :2], large[:, :2] + large[:, 2:]], axis=1)
    # np.unique also sorts.
    boxes = torch.from_numpy(np.unique(corners, axis=0)).to(torch.float32)
    return Proposals(Boxes(boxes, ImageSize(pixels.shape[0], pixels.shape[1])), torch.zeros(len(boxes)))


def _segmentation() -> Any:
    try:
        return importlib.import_module("cv2").ximgproc.segmentation
    except (ImportError, AttributeError) as error:
        package = "opencv-contrib-python-headless"
        raise MissingExtraError(package, "selective-search", "selective search") from error


def _bgr(image: Tensor | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert an image to uint8 ``[H, W, 3]`` in BGR; OpenCV accepts other inputs, with other results."""
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            got = f"{image.dtype} {list(image.shape)}"
            raise UserError("image", "a floating tensor [3, H, W] with values 0..1", got)
        planes = (image.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
        rgb = planes.permute(1, 2, 0).numpy()
    elif image.dtype == np.uint8 and image.ndim == 2:
        rgb = np.repeat(image[:, :, None], 3, axis=2)
    elif image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        rgb = image
    else:
        got = f"{image.dtype} {list(image.shape)}"
        raise UserError("image", "uint8 [H, W, 3] in RGB or [H, W] in grey", got)
    if 0 in rgb.shape:
        raise UserError("image", "at least one pixel", list(rgb.shape))
    return np.ascontiguousarray(rgb[:, :, ::-1])

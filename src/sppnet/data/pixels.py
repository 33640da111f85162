"""Convert arrays and tensors to uint8 RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sppnet.errors import UserError
from sppnet.inputs.pixels import Pixels, grey_to_rgb, grey_to_uint8, rgb_pixels

ARRAYS = (
    "an array [H, W, 3] in RGB, [H, W, 4] in RGBA or [H, W] in grey, of uint8, of floats in 0..1, "
    "or grey of uint16"
)
TENSORS = "a tensor [3, H, W] in RGB, [4, H, W] in RGBA or [1, H, W] in grey, of uint8 or of floats in 0..1"


def array_pixels(array: NDArray[Any], where: str = "image") -> Pixels:
    """Convert an array (see `ARRAYS`) to uint8 RGB ``[H, W, 3]``.

    Raises:
        UserError: the array has another shape or dtype, or floats outside 0..1.

    Examples:
        >>> array_pixels(np.array([[0.0, 1.0]])).tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    colour = array.ndim == 3 and array.shape[2] in (3, 4)
    deep = grey and array.dtype == np.uint16
    valid = array.dtype == np.uint8 or deep or array.dtype.kind == "f"
    if not valid or 0 in array.shape or not (grey or colour):
        raise UserError(where, ARRAYS, f"{array.dtype} {list(array.shape)}", _array_hint(array))
    if array.dtype.kind == "f":
        array = _unit_to_uint8(array, where)
    flat = array.reshape(array.shape[:2]) if grey else array
    if deep:
        return grey_to_rgb(grey_to_uint8(flat, "I;16"))
    if grey:
        return grey_to_rgb(flat)
    if array.shape[2] == 4:
        return rgb_pixels(Image.fromarray(np.ascontiguousarray(array), "RGBA"))
    return array


def tensor_pixels(tensor: Tensor, where: str = "image") -> Pixels:
    """Convert a tensor (see `TENSORS`) on any device to uint8 RGB ``[H, W, 3]``.

    Raises:
        UserError: the tensor has another shape or dtype, or floats outside 0..1.

    Examples:
        >>> tensor_pixels(torch.ones(3, 1, 2)).tolist()
        [[[255, 255, 255], [255, 255, 255]]]
    """
    got = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
    valid = tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4) and 0 not in tensor.shape
    if not valid or not (tensor.dtype == torch.uint8 or tensor.is_floating_point()):
        raise UserError(where, TENSORS, got, _tensor_hint(tensor))
    values = tensor.detach().cpu()
    if values.is_floating_point():
        values = values.float()
    return array_pixels(np.ascontiguousarray(values.permute(1, 2, 0).numpy()), where)


def _array_hint(array: NDArray[Any]) -> str:
    if array.ndim == 4:
        return "Pass the images of a batch as a list."
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        return "Move the channels last: array.transpose(1, 2, 0)."
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        return "Convert it: array.astype(numpy.uint8)."
    return ""


def _tensor_hint(tensor: Tensor) -> str:
    if tensor.ndim == 4:
        return "Pass the images of a batch as a list: list(batch)."
    if tensor.ndim == 3 and tensor.shape[2] in (3, 4) and tensor.shape[0] not in (1, 3, 4):
        return "Move the channels first: tensor.permute(2, 0, 1)."
    return ""


def _unit_to_uint8(values: NDArray[Any], where: str) -> Pixels:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN fails, too
        hint = "Divide by 255" if low >= 0 and high <= 255 else "Undo the normalisation first"
        raise UserError(where, "floats in 0..1", f"values in {low:.4g}..{high:.4g}", hint)
    return np.rint(values * 255).astype(np.uint8)

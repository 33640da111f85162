"""Convert images of any colour mode and depth, arrays and tensors to uint8 RGB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torch import Tensor

from sppnet.errors import UserError

Pixels: TypeAlias = NDArray[np.uint8]

_STRIP = 4_000_000  # pixels that are converted at a time

ARRAYS = (
    "an array [H, W, 3] in RGB, [H, W, 4] in RGBA or [H, W] in grey, of uint8, of floats in 0..1, "
    "or grey of uint16"
)
TENSORS = "a tensor [3, H, W] in RGB, [4, H, W] in RGBA or [1, H, W] in grey, of uint8 or of floats in 0..1"


def rgb_pixels(image: Image.Image) -> Pixels:
    """Convert a decoded image of any mode to uint8 RGB; transparent pixels are blended with white."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return np.asarray(image)
    if is_deep(image):
        return grey_to_rgb(deep_grey(image))
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return np.asarray(converted)
    if image.has_transparency_data:
        # Premultiplied modes can only be converted to their straight counterpart.
        plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        clear = (image.convert(plain) if plain else image).convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return np.asarray(Image.alpha_composite(white, clear).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def deep_grey(image: Image.Image) -> Pixels:
    """Convert grey of more than 8 bits to uint8 ``[H, W]``."""
    return _grey_to_uint8(lambda top, stop: np.asarray(_strip(image, top, stop)), image.size, image.mode)


def reduced(image: Image.Image, factor: int) -> Image.Image:
    """Convert an image of any mode to 8-bit grey or RGB, reduced by an integer factor by averaging.

    The image is converted strip by strip: a whole one would need up to twenty bytes per pixel.
    """
    if is_deep(image):
        return Image.fromarray(deep_grey(image)).reduce(factor)
    rows = factor * max(1, _STRIP // (factor * image.width))
    strips = [
        np.asarray(Image.fromarray(rgb_pixels(_strip(image, top, top + rows))).reduce(factor))
        for top in range(0, image.height, rows)
    ]
    return Image.fromarray(np.concatenate(strips))


def _strip(image: Image.Image, top: int, stop: int) -> Image.Image:
    return image.crop((0, top, image.width, min(stop, image.height)))


def grey_to_rgb(grey: Pixels) -> Pixels:
    """Repeat uint8 ``[H, W]`` to ``[H, W, 3]``."""
    return np.repeat(grey[:, :, None], 3, axis=2)


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
        size = array.shape[1], array.shape[0]
        return grey_to_rgb(_grey_to_uint8(lambda top, stop: flat[top:stop], size, "I;16"))
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


def _grey_to_uint8(rows: Callable[[int, int], NDArray[Any]], size: tuple[int, int], mode: str) -> Pixels:
    """Convert deep grey to uint8 ``[H, W]``, a strip at a time.

    Args:
        rows: returns the values of some rows, from the first to before the last; ``[n, W]``.
        size: width and height.
        mode: the mode of Pillow.
    """
    width, height = size
    step = max(1, _STRIP // max(1, width))
    spans = [(top, min(top + step, height)) for top in range(0, height, step)]
    ranges = [_range(_finite(rows(*span), mode)) for span in spans]
    convert = _conversion(mode, min(low for low, _ in ranges), max(high for _, high in ranges))
    grey = np.empty((height, width), np.uint8)
    for top, stop in spans:
        grey[top:stop] = convert(_finite(rows(top, stop), mode))
    return grey


def _finite(values: NDArray[Any], mode: str) -> NDArray[Any]:
    if mode.startswith("I;16"):
        return values
    return np.where(np.isfinite(values), values, 0).astype(np.float64)


def _range(values: NDArray[Any]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _conversion(mode: str, low: float, high: float) -> Callable[[NDArray[Any]], Pixels]:
    """Return the conversion of grey whose values are from ``low`` to ``high`` to 8 bits."""
    if mode.startswith("I;16") or (mode == "I" and low >= 0 and high <= 65535):
        # The upper 8 of the 10, 12, 14 or 16 bits of the maximum; values up to 255 do not change.
        shift = next(bits for bits in (8, 10, 12, 14, 16) if high < 2**bits) - 8
        return lambda values: (values.astype(np.uint16) >> shift).astype(np.uint8)
    if mode == "F" and low >= 0 and high <= 255:
        return lambda values: np.rint(values * 255 if high <= 1 else values).astype(np.uint8)
    return lambda values: np.rint((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8)

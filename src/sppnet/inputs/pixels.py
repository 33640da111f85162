"""Conversion of decoded images to uint8 RGB, and their orientation, without torch."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Pixels: TypeAlias = NDArray[np.uint8]

_ORIENTATION = 0x0112
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition of the pixels for each EXIF orientation other than 1."""


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, without decoding the image.

    Examples:
        >>> orientation(Image.new("RGB", (2, 3)))
        1
    """
    if image.format == "PNG" and "exif" not in image.info and "Raw profile type exif" not in image.info:
        # getexif would decode the whole image to find a chunk at the end.
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not affect the pixels
        return 1
    return value if value in TRANSPOSES else 1


def rgb_pixels(image: Image.Image) -> Pixels:
    """Convert a decoded image of any mode to uint8 RGB ``[H, W, 3]``; transparency is blended with white.

    Examples:
        >>> rgb_pixels(Image.new("L", (2, 1), 7)).tolist()
        [[[7, 7, 7], [7, 7, 7]]]
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return np.asarray(image)
    if image.mode.startswith(("I", "F")):
        return grey_to_rgb(grey_to_uint8(np.asarray(image), image.mode))
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


def grey_to_rgb(grey: Pixels) -> Pixels:
    """Repeat uint8 ``[H, W]`` to ``[H, W, 3]``."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def grey_to_uint8(values: NDArray[Any], mode: str) -> Pixels:
    """Convert integers or floats ``[H, W]`` of a Pillow mode (I, I;16 or F) to uint8 by their range.

    Examples:
        >>> grey_to_uint8(np.array([[0, 65535]]), "I;16").tolist()
        [[0, 255]]
    """
    if mode.startswith("I;16"):
        return _deep_to_uint8(values.astype(np.uint16))
    plain = np.where(np.isfinite(values), values, 0).astype(np.float64)
    low, high = float(plain.min()), float(plain.max())
    if mode == "I" and low >= 0 and high <= 65535:
        return _deep_to_uint8(plain.astype(np.uint16))
    if mode == "F" and low >= 0 and high <= 255:
        return np.rint(plain * 255 if high <= 1 else plain).astype(np.uint8)
    return np.rint((plain - low) / ((high - low) or 1.0) * 255).astype(np.uint8)


def _deep_to_uint8(values: NDArray[np.uint16]) -> Pixels:
    """Return the upper 8 of the 10, 12, 14 or 16 bits of the maximum; values up to 255 do not change."""
    high = int(values.max())
    bits = next(bits for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    return (values >> (bits - 8)).astype(np.uint8)

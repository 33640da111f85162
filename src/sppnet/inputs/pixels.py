"""Conversion of decoded images to uint8 RGB, and their orientation, without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Pixels: TypeAlias = NDArray[np.uint8]

_STRIP = 4_000_000  # pixels that are converted at a time
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
    if _is_deep(image):
        return grey_to_rgb(_deep_grey(image))
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
    return _strips_to_uint8(lambda top, stop: values[top:stop], (values.shape[0], values.shape[1]), mode)


def reduced(image: Image.Image, factor: int) -> Image.Image:
    """Convert a decoded image of any mode to 8-bit grey or RGB, reduced by an integer factor by averaging.

    Colour images are converted and reduced in strips, because the conversion of a whole image would need up
    to 20 bytes per pixel.

    Examples:
        >>> reduced(Image.new("RGBA", (6, 4), "red"), 2).size
        (3, 2)
    """
    if _is_deep(image):
        return Image.fromarray(_deep_grey(image)).reduce(factor)
    height = factor * max(1, _STRIP // (factor * image.width))
    strips = [
        np.asarray(Image.fromarray(rgb_pixels(_strip(image, top, top + height))).reduce(factor))
        for top in range(0, image.height, height)
    ]
    return Image.fromarray(np.concatenate(strips))


def _strip(image: Image.Image, top: int, stop: int) -> Image.Image:
    return image.crop((0, top, image.width, min(stop, image.height)))


def _is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def _deep_grey(image: Image.Image) -> Pixels:
    """Convert grey of more than 8 bits to uint8 ``[H, W]``."""
    size = image.height, image.width
    return _strips_to_uint8(lambda top, stop: np.asarray(_strip(image, top, stop)), size, image.mode)


def _strips_to_uint8(strip: Callable[[int, int], NDArray[Any]], size: tuple[int, int], mode: str) -> Pixels:
    """Convert deep grey to uint8 ``[H, W]`` in strips, so that float64 copies are small.

    Args:
        strip: returns the values ``[stop - top, W]`` from row ``top`` to before row ``stop``.
        size: height and width.
        mode: the mode of Pillow.
    """
    height, width = size
    step = max(1, _STRIP // max(1, width))
    spans = [(top, min(top + step, height)) for top in range(0, height, step)]
    ranges = [_range(_finite(strip(*span), mode)) for span in spans]
    convert = _conversion(mode, min(low for low, _ in ranges), max(high for _, high in ranges))
    grey = np.empty((height, width), np.uint8)
    for top, stop in spans:
        grey[top:stop] = convert(_finite(strip(top, stop), mode))
    return grey


def _finite(values: NDArray[Any], mode: str) -> NDArray[Any]:
    if mode.startswith("I;16"):
        return values
    return np.where(np.isfinite(values), values, 0).astype(np.float64)


def _range(values: NDArray[Any]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _conversion(mode: str, low: float, high: float) -> Callable[[NDArray[Any]], Pixels]:
    """Return the conversion to uint8 of grey values from ``low`` to ``high``."""
    if mode.startswith("I;16") or (mode == "I" and low >= 0 and high <= 65535):
        # The upper 8 of the 10, 12, 14 or 16 bits of the maximum; values up to 255 do not change.
        shift = next(bits for bits in (8, 10, 12, 14, 16) if high < 2**bits) - 8
        return lambda values: (values.astype(np.uint16) >> shift).astype(np.uint8)
    if mode == "F" and low >= 0 and high <= 255:
        return lambda values: np.rint(values * 255 if high <= 1 else values).astype(np.uint8)
    return lambda values: np.rint((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8)

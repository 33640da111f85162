"""Decoding of uploaded images, after their headers have been checked against the limits."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from sppnet.data.images import Pixels, read_pixels
from sppnet.errors import UserError
from sppnet.serve.options import ServeOptions
from sppnet.serve.problems import Problem

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The accepted formats; formats that start other programs, such as EPS, are excluded."""


def open_upload(data: bytes, options: ServeOptions) -> Image.Image:
    """Read the header of an image and check its size.

    Args:
        data: the bytes of the file.
        options: the limits.

    Returns:
        The image, not yet decoded.

    Raises:
        Problem: 422 for data that are not an image or an extreme aspect ratio, 413 for too many pixels.
    """
    if not data:
        raise Problem(422, "empty", "expected an image, got no bytes")
    try:
        image = Image.open(BytesIO(data), formats=_available())
    except Image.DecompressionBombError:
        raise _too_many_pixels(options) from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise any type of error for a corrupt header
        kinds = ", ".join(FORMATS)
        raise Problem(422, "undecodable", f"expected an image ({kinds}), got other data") from error
    width, height = image.size
    if width * height > options.max_pixels:
        raise _too_many_pixels(options, f"{width} x {height}")
    if max(width, height) > options.max_aspect * max(1, min(width, height)):
        expected = f"expected a long side of at most {options.max_aspect:g} times the short side"
        raise Problem(422, "aspect_ratio", f"{expected}, got {width} x {height}")
    return image


def decode(image: Image.Image) -> Pixels:
    """Decode an opened image: uint8 ``[H, W, 3]``, RGB, upright.

    Raises:
        Problem: 422 for a truncated or corrupt image.
    """
    try:
        return read_pixels(image)
    except UserError as error:
        raise Problem(422, "undecodable", " ".join(str(error).split())) from error


def _available() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _too_many_pixels(options: ServeOptions, got: str = "more") -> Problem:
    expected = f"expected an image of at most {options.max_megapixels:g} megapixels"
    return Problem(413, "too_many_pixels", f"{expected}, got {got}")

"""From uploaded bytes to pixels, within limits that are checked before anything is decoded."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from sppnet.data.images import Pixels, read_pixels
from sppnet.errors import UserError
from sppnet.serve.options import ServeOptions
from sppnet.serve.problems import Problem

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The formats that are decoded; formats that start other programs, such as EPS, are not among them."""


def open_upload(data: bytes, options: ServeOptions) -> Image.Image:
    """Read an image's header and check its size.

    Args:
        data: the file as it was uploaded.
        options: limits.

    Returns:
        An image that is not decoded yet.

    Raises:
        Problem: 422 for no image or an extreme shape, 413 for too many pixels.
    """
    if not data:
        raise Problem(422, "empty", "expected an image, got no bytes")
    try:
        image = Image.open(BytesIO(data), formats=_available())
    except Image.DecompressionBombError:
        raise _too_many_pixels(options) from None
    except MemoryError:
        raise
    except Exception as error:  # what a broken header makes of a decoder has no common type
        kinds = ", ".join(FORMATS)
        raise Problem(422, "undecodable", f"expected an image ({kinds}), got other data") from error
    width, height = image.size
    if width * height > options.max_pixels:
        raise _too_many_pixels(options, f"{width} x {height}")
    if max(width, height) > options.max_aspect * max(1, min(width, height)):
        wanted = f"expected a long side of at most {options.max_aspect:g} times the short side"
        raise Problem(422, "aspect_ratio", f"{wanted}, got {width} x {height}")
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
    wanted = f"expected an image of at most {options.max_megapixels:g} megapixels"
    return Problem(413, "too_many_pixels", f"{wanted}, got {got}")

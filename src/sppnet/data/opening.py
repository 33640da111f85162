"""Open image files: header, limit of pixels and orientation."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from sppnet.errors import UserError
from sppnet.inputs.pixels import orientation
from sppnet.structures import ImageSize

_MAX_MEGAPIXELS = "SPPNET_MAX_MEGAPIXELS"
_opening = threading.Lock()


def max_pixels() -> int:
    """Return the pixel limit of images: ``SPPNET_MAX_MEGAPIXELS`` of the environment, else that of Pillow.

    Raises:
        UserError: the value is not a positive number.

    Examples:
        >>> getfixture("monkeypatch").setenv("SPPNET_MAX_MEGAPIXELS", "200")
        >>> max_pixels()
        200000000
    """
    text = os.environ.get(_MAX_MEGAPIXELS, "")
    if not text:
        return 2 * (Image.MAX_IMAGE_PIXELS or 2**62)
    try:
        limit = float(text) * 1e6
        if not 0 < limit < 2**62:
            raise ValueError
    except ValueError:
        raise UserError(_MAX_MEGAPIXELS, "a positive number of megapixels", repr(text)) from None
    return int(limit)


def upright_size(image: Image.Image) -> tuple[ImageSize, bool]:
    """Return the size after EXIF rotation, and whether the rotation swaps height and width."""
    width, height = image.size
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        # Pillow swaps the sides of a rotated TIFF itself, on opening or on loading, depending on its version.
        width, height = tags.get(256, width), tags.get(257, height)
    swapped = orientation(image) >= 5
    return (ImageSize(width, height), True) if swapped else (ImageSize(height, width), False)


def path_of(source: str | os.PathLike[str]) -> Path:
    """Return the path; raise `UserError` for a NUL character."""
    path = Path(source)
    if "\0" in str(path):
        raise UserError("image", "a path without NUL characters", repr(str(path)))
    return path


def open_image(path: Path) -> Image.Image:
    """Open an image file and read its header.

    Raises:
        UserError: the file is missing, not an image, or has more than `max_pixels`.
    """
    try:
        if not path.is_file():
            raise UserError(path, "an image", "a folder" if path.is_dir() else "no such file")
        empty = path.stat().st_size == 0
    except OSError as error:
        raise UserError(path, "a readable image", error.strerror or error) from error
    return open_file(path, path, empty=empty)


def open_file(file: Path | BinaryIO, where: object, *, empty: bool) -> Image.Image:
    """Open an image file like `open_image`; ``where`` names it in errors."""
    limit = max_pixels()
    try:
        # The limit of Pillow is global: it is disabled for this call only, and `max_pixels` is checked
        # instead.
        with _opening:
            previous, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = previous
    except UnidentifiedImageError as error:
        raise UserError(where, "an image", "an empty file" if empty else "a file of unknown type") from error
    except Exception as error:  # exceptions of decoders for damaged headers have no common type
        raise UserError(where, "a readable image", reason(error)) from error
    if image.width * image.height > limit:
        got = f"{image.width} x {image.height} = {image.width * image.height:,} pixels"
        image.close()
        hint = "If the image can be trusted, set --max-megapixels or SPPNET_MAX_MEGAPIXELS."
        raise UserError(where, f"an image of at most {limit:,} pixels", got, hint)
    return image


def reason(error: Exception) -> str:
    """Return the message of an exception, or its type if it has none."""
    return str(error) or type(error).__name__

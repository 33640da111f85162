"""Opening image files: the header, the limit of pixels, and the orientation."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from sppnet.errors import UserError
from sppnet.structures import ImageSize

_MAX_MEGAPIXELS = "SPPNET_MAX_MEGAPIXELS"
_ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_opening = threading.Lock()


def max_pixels() -> int:
    """Most pixels of an image: the environment's ``SPPNET_MAX_MEGAPIXELS`` million, or Pillow's own limit.

    Raises:
        UserError: a value that is no positive number.

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
    """The size after EXIF rotation, and whether that swapped the file's height and width."""
    width, height = image.size
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        # Pillow swaps a rotated TIFF's sides by itself, at opening or at loading by its version.
        width, height = tags.get(256, width), tags.get(257, height)
    turned = orientation(image) >= 5
    return (ImageSize(width, height), True) if turned else (ImageSize(height, width), False)


def path_of(source: str | os.PathLike[str]) -> Path:
    """The path; one with a NUL character is refused."""
    path = Path(source)
    if "\0" in str(path):
        raise UserError("image", "a path without NUL characters", repr(str(path)))
    return path


def open_image(path: Path) -> Image.Image:
    """An image file, its header read.

    Raises:
        UserError: no such file, no image, or one of more than `max_pixels`.
    """
    try:
        if not path.is_file():
            raise UserError(path, "an image", "a folder" if path.is_dir() else "no such file")
        empty = path.stat().st_size == 0
    except OSError as error:
        raise UserError(path, "a readable image", error.strerror or error) from error
    return open_file(path, path, empty=empty)


def open_file(file: Path | BinaryIO, where: object, *, empty: bool) -> Image.Image:
    """As `open_image`; ``where`` names the file in errors."""
    limit = max_pixels()
    try:
        # Pillow's own limit is the module's: it is lifted for this call alone, and ours checked instead.
        with _opening:
            known, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = known
    except UnidentifiedImageError as error:
        raise UserError(where, "an image", "an empty file" if empty else "a file of no known type") from error
    except Exception as error:  # what a broken header makes of a decoder has no common type
        raise UserError(where, "a readable image", reason(error)) from error
    if image.width * image.height > limit:
        got = f"{image.width} x {image.height} = {image.width * image.height:,}"
        image.close()
        todo = "If the image can be trusted, set --max-megapixels or SPPNET_MAX_MEGAPIXELS."
        raise UserError(where, f"an image of at most {limit:,} pixels", got, todo)
    return image


def reason(error: Exception) -> str:
    """What an exception says, or its type where it says nothing."""
    return str(error) or type(error).__name__


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, without decoding the image."""
    if image.format == "PNG" and "exif" not in image.info and "Raw profile type exif" not in image.info:
        # Its getexif would decode the whole image in search of a late chunk.
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels, which are still good
        return 1
    return value if value in TURNS else 1

"""Read images as uint8 RGB without torch."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sppnet.errors import UserError
from sppnet.inputs.pixels import TRANSPOSES, Pixels, grey_to_rgb, orientation, rgb_pixels

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]


def read_pixels(source: ImageSource) -> Pixels:
    """Read an image as uint8 ``[H, W, 3]``, RGB, upright, with transparent pixels blended with white.

    Args:
        source: a path, the bytes of a file, a PIL image, or a uint8 array, ``[H, W, 3]`` in RGB or
            ``[H, W]`` in grey.

    Raises:
        UserError: the file is missing, not an image, damaged or too large, or the array has another shape or
            dtype.
    """
    if isinstance(source, np.ndarray):
        return _array_pixels(source)
    if isinstance(source, Image.Image):
        return _decoded(source, "image")
    content = _content(source)
    where = "bytes" if isinstance(content, bytes) else Path(content)
    if isinstance(where, Path) and not _is_file(where):
        raise UserError(where, "an image", "a folder" if os.path.isdir(where) else "no such file")
    try:
        opened = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
    except UnidentifiedImageError as error:
        raise UserError(where, "an image", "a file of unknown type") from error
    except Image.DecompressionBombError as error:
        raise _too_large(where, error) from error
    except Exception as error:  # exceptions of decoders for damaged headers have no common type
        raise UserError(where, "a readable image", str(error) or type(error).__name__) from error
    with opened:
        return _decoded(opened, where)


def _content(source: Any) -> bytes | str | os.PathLike[str]:
    """Return a path, or the bytes of a buffer or a binary file."""
    if isinstance(source, (str, os.PathLike)):
        return cast("str | os.PathLike[str]", source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if hasattr(source, "read"):
        content: object = source.read()
        if isinstance(content, bytes):
            return content
        raise UserError("image", "a binary file", f"a file that yields {type(content).__name__}")
    expected = "a path, bytes, a binary file, a PIL image or a uint8 array"
    raise UserError("image", expected, type(source).__name__)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long
        return False


def _too_large(where: object, error: Exception) -> UserError:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    hint = "If the image can be trusted, raise PIL.Image.MAX_IMAGE_PIXELS."
    return UserError(where, f"an image of at most {limit:,} pixels", error, hint)


def _array_pixels(array: NDArray[Any]) -> Pixels:
    grey = array.ndim == 2
    colour = array.ndim == 3 and array.shape[2] == 3
    if array.dtype != np.uint8 or 0 in array.shape or not (grey or colour):
        expected = "a uint8 array [H, W, 3] in RGB or [H, W] in grey"
        raise UserError("image", expected, f"{array.dtype} {list(array.shape)}")
    return np.ascontiguousarray(grey_to_rgb(array) if grey else array)


def _decoded(image: Image.Image, where: object) -> Pixels:
    try:
        # Pillow rotates TIFF files itself.
        exif = 1 if getattr(image, "tag_v2", None) is not None else orientation(image)
        image.load()
        return rgb_pixels(image.transpose(TRANSPOSES[exif]) if exif > 1 else image)
    except Image.DecompressionBombError as error:
        raise _too_large(where, error) from error
    except MemoryError:
        raise
    except Exception as error:  # exceptions of decoders for damaged data have no common type
        hint = "The file may be truncated or corrupt."
        raise UserError(where, "an image that decodes", str(error) or type(error).__name__, hint) from error

"""Read images as uint8 RGB without torch."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, TypeAlias

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
    where = "bytes" if isinstance(source, bytes) else Path(source)
    if isinstance(where, Path) and not where.is_file():
        raise UserError(where, "an image", "a folder" if where.is_dir() else "no such file")
    try:
        opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except UnidentifiedImageError as error:
        raise UserError(where, "an image", "a file of unknown type") from error
    except Image.DecompressionBombError as error:
        raise _too_large(where, error) from error
    except Exception as error:  # exceptions of decoders for damaged headers have no common type
        raise UserError(where, "a readable image", str(error) or type(error).__name__) from error
    with opened:
        return _decoded(opened, where)


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

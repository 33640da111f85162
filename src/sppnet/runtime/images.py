"""Read images as uint8 RGB without torch."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from sppnet.errors import UserError

Pixels: TypeAlias = NDArray[np.uint8]
ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]

_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
    return np.ascontiguousarray(np.repeat(array[:, :, None], 3, axis=2) if grey else array)


def _decoded(image: Image.Image, where: object) -> Pixels:
    try:
        # Pillow rotates TIFF files itself.
        exif = 1 if getattr(image, "tag_v2", None) is not None else _orientation(image)
        image.load()
        return _to_rgb(image.transpose(_TRANSPOSES[exif]) if exif > 1 else image)
    except Image.DecompressionBombError as error:
        raise _too_large(where, error) from error
    except MemoryError:
        raise
    except Exception as error:  # exceptions of decoders for damaged data have no common type
        hint = "The file may be truncated or corrupt."
        raise UserError(where, "an image that decodes", str(error) or type(error).__name__, hint) from error


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info and "Raw profile type exif" not in image.info:
        return 1  # getexif would decode the whole image to find a chunk at the end
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not affect the pixels
        return 1
    return value if value in _TRANSPOSES else 1


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode == "RGB" and not image.has_transparency_data:
        return np.asarray(image)
    if image.mode.startswith(("I", "F")):
        grey = _grey_to_uint8(np.asarray(image), image.mode)
        return np.repeat(grey[:, :, None], 3, axis=2)
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


def _grey_to_uint8(values: NDArray[Any], mode: str) -> Pixels:
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

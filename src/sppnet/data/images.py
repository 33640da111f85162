"""Decode images of any source, file type, colour mode and orientation."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sppnet.data.opening import (
    max_pixels,
    open_file,
    open_image,
    path_of,
    reason,
    upright_size,
)
from sppnet.data.pixels import array_pixels, tensor_pixels
from sppnet.data.search import IMAGE_ENDINGS, find_images, images_under, is_image
from sppnet.errors import UserError
from sppnet.inputs.pixels import TRANSPOSES, Pixels, orientation, reduced, rgb_pixels
from sppnet.structures import ImageSize

__all__ = [
    "IMAGE_ENDINGS",
    "LARGE",
    "ImageSource",
    "Pixels",
    "ScaledImage",
    "find_images",
    "image_shape",
    "image_size",
    "images_under",
    "is_image",
    "max_pixels",
    "pixels_to_image",
    "read_image",
    "read_pixels",
    "read_scaled",
    "read_scaled_pixels",
    "stable_source",
]

ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[Any] | Tensor
)

_SOURCES = "a path, bytes, a binary file, a PIL image, an array or a tensor"

LARGE = 16_000_000
"""Images of more pixels are reduced to at least twice the input size of the network."""

_decoding_large = threading.Lock()
_REDUCIBLE = frozenset({"L", "RGB", "CMYK", "YCbCr"})


@dataclass(frozen=True)
class ScaledImage:
    """An image that may have been reduced while it was decoded.

    Attributes:
        values: float32 ``[3, H, W]``, RGB, 0..1.
        size: the original size, after EXIF rotation.

    Examples:
        >>> ScaledImage(torch.zeros(3, 20, 15), ImageSize(40, 30)).size.height
        40
    """

    values: Tensor
    size: ImageSize


def read_image(source: ImageSource) -> Tensor:
    """Read an image as a contiguous float32 tensor ``[3, H, W]``, RGB, 0..1.

    Args:
        source: see `read_pixels`.

    Raises:
        UserError: see `read_pixels`.

    Examples:
        >>> read_image(np.zeros((2, 3, 3), np.uint8)).shape
        torch.Size([3, 2, 3])
    """
    return pixels_to_image(read_pixels(source))


def read_scaled(source: ImageSource, wanted: Callable[[ImageSize], ImageSize]) -> ScaledImage:
    """Read an image; one of more than 16 megapixels is reduced by averaging while it is decoded.

    Both sides stay at least twice those of ``wanted``. JPEG files are decoded at a reduced size, so that
    memory depends on the input of the network, not on the file.

    Args:
        source: see `read_pixels`.
        wanted: maps the size of the image to the largest input size of the network.

    Raises:
        UserError: see `read_pixels`.

    Examples:
        >>> read = read_scaled(np.zeros((40, 30, 3), np.uint8), lambda size: ImageSize(4, 3))
        >>> read.values.shape, read.size
        (torch.Size([3, 40, 30]), ImageSize(height=40, width=30))
    """
    pixels, size = read_scaled_pixels(source, wanted)
    return ScaledImage(pixels_to_image(pixels), size)


def pixels_to_image(pixels: Pixels) -> Tensor:
    """Convert uint8 ``[H, W, 3]`` to float32 ``[3, H, W]``; a value v becomes v / 255, correctly rounded.

    Examples:
        >>> pixels_to_image(np.full((1, 2, 3), 255, np.uint8)).shape
        torch.Size([3, 1, 2])
    """
    # One pass in this thread: torch would synchronise all its threads for every image, which is many times
    # slower when the cores are busy.
    image = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
    np.divide(pixels.transpose(2, 0, 1), np.float32(255), out=image)
    return torch.from_numpy(image)


def read_pixels(source: ImageSource) -> Pixels:
    """Read an image as uint8 ``[H, W, 3]``, RGB, upright; the array may be read-only.

    - EXIF orientation is applied. The first frame of an animation and the first page of a document are read.
    - Transparent pixels are blended with white.
    - 16-bit grey is reduced to the upper 8 of the 10, 12, 14 or 16 bits of its maximum; values up to 255 do
      not change. Mode ``I`` is treated as 16 bits if its values allow it, mode ``F`` as 0..1 or as 0..255.
      Other ranges are stretched from the minimum to the maximum.
    - Embedded colour profiles are not applied.

    Args:
        source: a path; the bytes of an image file; a binary file object, read from its position; a PIL
            image; an array ``[H, W, 3]`` (RGB), ``[H, W, 4]`` (RGBA) or ``[H, W]`` (grey) of uint8 or of
            floats in 0..1; a tensor ``[3, H, W]`` of uint8 or of floats in 0..1.

    Raises:
        UserError: the file is missing, not an image, damaged or larger than `max_pixels`, or the source is
            of another kind, shape or dtype.

    Examples:
        >>> read_pixels(torch.ones(3, 1, 2)).tolist()
        [[[255, 255, 255], [255, 255, 255]]]
    """
    return read_scaled_pixels(source, None)[0]


def read_scaled_pixels(
    source: ImageSource, wanted: Callable[[ImageSize], ImageSize] | None
) -> tuple[Pixels, ImageSize]:
    """Read an image like `read_scaled`, as uint8 ``[H, W, 3]``, and return it with the original size."""
    if isinstance(source, (np.ndarray, Tensor)):
        pixels = array_pixels(source) if isinstance(source, np.ndarray) else tensor_pixels(source)
        return _reduced_pixels(pixels, wanted), ImageSize(*pixels.shape[:2])
    if isinstance(source, Image.Image):
        return _decoded(source, "image", wanted, draft=False)
    if isinstance(source, (str, os.PathLike)):
        with open_image(path_of(source)) as image:
            return _decoded(image, source, wanted)
    content = stable_source(source)
    if not isinstance(content, bytes):
        raise UserError("image", _SOURCES, type(source).__name__)
    with open_file(io.BytesIO(content), "image", empty=not content) as image:
        return _decoded(image, "image", wanted)


def stable_source(source: ImageSource) -> ImageSource:
    """Return a source that can be read more than once: the bytes of a file object, else the source.

    Raises:
        UserError: the file object cannot be read, or is not binary.

    Examples:
        >>> stable_source(io.BytesIO(b"content"))
        b'content'
    """
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, Image.Image) or not hasattr(source, "read"):
        return source
    try:
        content: object = cast("Any", source).read()
    except (OSError, ValueError) as error:
        raise UserError("image", "a binary file that can be read", reason(error)) from error
    if not isinstance(content, bytes):
        hint = "Open it with mode 'rb'."
        raise UserError("image", "a binary file", f"a file that yields {type(content).__name__}", hint)
    return content


def image_size(source: ImageSource) -> ImageSize:
    """Return the size of an image after EXIF rotation; for a path, only the header is read.

    Raises:
        UserError: the file is missing or not an image.

    Examples:
        >>> image_size(np.zeros((2, 3), np.uint8))
        ImageSize(height=2, width=3)
    """
    if isinstance(source, (str, os.PathLike)):
        return image_shape(source)[0]
    return ImageSize(*read_pixels(source).shape[:2])


def image_shape(path: str | os.PathLike[str]) -> tuple[ImageSize, bool]:
    """Return the size of an image file, and whether EXIF rotation swaps height and width."""
    with open_image(path_of(path)) as image:
        return upright_size(image)


def _decoded(
    image: Image.Image,
    where: object,
    wanted: Callable[[ImageSize], ImageSize] | None,
    *,
    draft: bool = True,
) -> tuple[Pixels, ImageSize]:
    try:
        exif = 1 if getattr(image, "tag_v2", None) is not None else orientation(image)
        size, _ = upright_size(image)
        factor = 1 if wanted is None else _factor(size, wanted(size))
        # The memory of large images must not grow with the number of threads that decode.
        with _decoding_large if size.area > LARGE else nullcontext():
            image = _loaded(image, size, factor, draft=draft)
            pixels = rgb_pixels(image.transpose(TRANSPOSES[exif]) if exif > 1 else image)
        # A TIFF that was rotated on loading still has the tags of the file.
        return pixels, size if factor > 1 else ImageSize(*pixels.shape[:2])
    except (MemoryError, UserError):
        raise
    except Exception as error:  # exceptions of decoders for damaged data have no common type
        hint = "The file may be truncated or corrupt: fetch it again or leave it out."
        raise UserError(where, "an image that decodes", reason(error), hint) from error


def _loaded(image: Image.Image, size: ImageSize, factor: int, *, draft: bool) -> Image.Image:
    """Decode an image, reduced by a factor."""
    if factor > 1 and draft:
        # JPEG is decoded at a half, a quarter or an eighth; the call has no effect for other file types.
        image.draft(image.mode, (image.width // factor, image.height // factor))
    image.load()
    if factor == 1:
        return image
    if image.mode not in _REDUCIBLE or image.has_transparency_data:
        return reduced(image, factor)
    decoded_at = round((size.area / (image.width * image.height)) ** 0.5)
    return image.reduce(factor // decoded_at) if factor >= 2 * decoded_at else image


def _factor(size: ImageSize, wanted: ImageSize) -> int:
    """Return the integer factor by which an image is reduced; 1 does not change it."""
    if size.area <= LARGE:
        return 1
    return max(1, min(size.height // (2 * wanted.height), size.width // (2 * wanted.width)))


def _reduced_pixels(pixels: Pixels, wanted: Callable[[ImageSize], ImageSize] | None) -> Pixels:
    size = ImageSize(*pixels.shape[:2])
    factor = 1 if wanted is None else _factor(size, wanted(size))
    return pixels if factor == 1 else np.asarray(Image.fromarray(pixels).reduce(factor))

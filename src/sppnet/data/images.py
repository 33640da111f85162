"""Decoding images safely, whatever their file type, colour mode and orientation."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from sppnet.errors import UserError
from sppnet.structures import ImageSize

IMAGE_ENDINGS = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm",
    ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""The file endings, in lower case, that folders and globs are searched for."""

Pixels: TypeAlias = NDArray[np.uint8]
ImageSource: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any]

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: ImageSource) -> Tensor:
    """The image as the networks take it: float32 ``[3, H, W]``, RGB, 0..1, contiguous.

    Args:
        source: a path, a PIL image, or a uint8 array, ``[H, W, 3]`` in RGB or ``[H, W]`` in grey.

    Raises:
        UserError: see `read_pixels`.
    """
    return pixels_to_image(read_pixels(source))


def pixels_to_image(pixels: Pixels) -> Tensor:
    """uint8 ``[H, W, 3]`` to float32 ``[3, H, W]``, 0..1; a value v becomes v / 255 correctly rounded."""
    # One pass, in this thread: torch would wait for all its threads on every image, which takes many
    # times as long wherever the cores are busy.
    image = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
    np.divide(pixels.transpose(2, 0, 1), np.float32(255), out=image)
    return torch.from_numpy(image)


def read_pixels(source: ImageSource) -> Pixels:
    """The image as uint8 ``[H, W, 3]``, RGB, upright; it may be read-only.

    - EXIF orientation is applied. Of an animation or a file of many pages, the first frame is taken.
    - Whatever is transparent lies on white, as a browser would show it.
    - Grey with 16 bits keeps its upper 8. Mode ``I`` counts as 16 bits where its values allow it, mode
      ``F`` as 0..1 or else as 0..255; other ranges are stretched from their least to their greatest.
    - Embedded colour profiles are not applied.

    Args:
        source: a path, a PIL image, or a uint8 array, ``[H, W, 3]`` in RGB or ``[H, W]`` in grey.

    Raises:
        UserError: no such file, no image, a truncated or corrupt one, one larger than Pillow's limit
            of ``2 * PIL.Image.MAX_IMAGE_PIXELS``, or an array of another shape or type.
    """
    if isinstance(source, np.ndarray):
        return _array_pixels(source)
    if isinstance(source, Image.Image):
        return _rgb_pixels(source, "image")
    path = Path(source)
    with _open(path) as image:
        return _rgb_pixels(image, path)


def image_size(path: str | os.PathLike[str]) -> ImageSize:
    """Height and width of an image after EXIF rotation, from its header alone.

    Raises:
        UserError: no such file, or no image.
    """
    return image_shape(path)[0]


def image_shape(path: str | os.PathLike[str]) -> tuple[ImageSize, bool]:
    """As `image_size`, and whether EXIF rotation swapped the file's own height and width."""
    with _open(Path(path)) as image:
        width, height = image.size
        tags = getattr(image, "tag_v2", None)
        if tags is not None:
            # Pillow swaps a rotated TIFF's sides by itself, at opening or at loading by its version.
            width, height = tags.get(256, width), tags.get(257, height)
        turned = _orientation(image) >= 5
    return (ImageSize(width, height), True) if turned else (ImageSize(height, width), False)


def find_images(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The images that paths, folders and globs stand for, each once, in the order given.

    A file is taken whatever its ending. Of folders (with all their subfolders, hidden ones left out)
    and of globs (``**`` included) the files with one of `IMAGE_ENDINGS` are taken, sorted.

    Raises:
        UserError: a source that does not exist, or that holds no image.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_file():
            images = [path]
        elif path.is_dir():
            images = images_under(path)
        elif glob.has_magic(os.fspath(source)):
            matches = glob.glob(os.path.expanduser(source), recursive=True)
            images = sorted(Path(name) for name in matches if is_image(Path(name)))
        else:
            raise UserError(source, "an image, a folder or a glob", "no such file or folder")
        if not images:
            raise UserError(source, f"images ({' '.join(IMAGE_ENDINGS)})", "none")
        found.update(dict.fromkeys(images))
    if not found:
        raise UserError("sources", "at least one image, folder or glob", "none")
    return list(found)


def is_image(path: Path) -> bool:
    """Whether a file has one of `IMAGE_ENDINGS`; hidden files, as macOS adds them, do not count."""
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".") and path.is_file()


def images_under(folder: Path) -> list[Path]:
    """The images of a folder and of its subfolders, hidden ones left out, sorted by path."""
    images: list[Path] = []
    for here, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images += [Path(here, name) for name in names if is_image(Path(here, name))]
    return sorted(images)


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise UserError(path, "an image", "a folder" if path.is_dir() else "no such file")
    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        raise UserError(path, "an image", "an empty file" if empty else "a file of no known type") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, error) from error
    except Exception as error:  # what a broken header makes of a decoder has no common type
        raise UserError(path, "a readable image", _reason(error)) from error


def _too_large(where: object, error: Exception) -> UserError:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    todo = "If the image can be trusted, raise PIL.Image.MAX_IMAGE_PIXELS"
    return UserError(where, f"an image of at most {limit:,} pixels", _reason(error), todo)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, without decoding the image."""
    if image.format == "PNG" and "exif" not in image.info and "Raw profile type exif" not in image.info:
        # Its getexif would decode the whole image in search of a late chunk.
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels, which are still good
        return 1
    return value if value in _TURNS else 1


def _array_pixels(array: NDArray[Any]) -> Pixels:
    grey = array.ndim == 2
    colour = array.ndim == 3 and array.shape[2] == 3
    if array.dtype != np.uint8 or 0 in array.shape or not (grey or colour):
        wanted = "a uint8 array [H, W, 3] in RGB or [H, W] in grey"
        raise UserError("image", wanted, f"{array.dtype} {list(array.shape)}")
    return np.repeat(array[:, :, None], 3, axis=2) if grey else array


def _rgb_pixels(image: Image.Image, where: object) -> Pixels:
    try:
        turn = 1
        if getattr(image, "tag_v2", None) is None:
            turn = _orientation(image)
        image.load()
        upright = image.transpose(_TURNS[turn]) if turn > 1 else image
        return _to_rgb(upright)
    except Image.DecompressionBombError as error:
        raise _too_large(where, error) from error
    except MemoryError:
        raise
    except Exception as error:  # what broken data makes of a decoder has no common type
        todo = "The file may be truncated or corrupt: fetch it again or leave it out"
        raise UserError(where, "an image that decodes", _reason(error), todo) from error


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
        # Premultiplied modes convert only to their plain twin.
        plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        clear = (image.convert(plain) if plain else image).convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return np.asarray(Image.alpha_composite(white, clear).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _grey_to_uint8(values: NDArray[Any], mode: str) -> Pixels:
    if mode.startswith("I;16"):
        return (values >> 8).astype(np.uint8)
    plain = np.where(np.isfinite(values), values, 0).astype(np.float64)
    low, high = float(plain.min()), float(plain.max())
    if mode == "I" and low >= 0 and high <= 65535:
        return (plain.astype(np.int64) >> 8).astype(np.uint8)
    if mode == "F" and low >= 0 and high <= 255:
        return np.rint(plain * 255 if high <= 1 else plain).astype(np.uint8)
    return np.rint((plain - low) / ((high - low) or 1.0) * 255).astype(np.uint8)

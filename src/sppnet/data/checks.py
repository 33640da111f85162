"""Find all damaged images of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from sppnet.data.images import image_size, read_scaled_pixels
from sppnet.errors import UserError
from sppnet.progress import track
from sppnet.structures import ImageSize

_CHECKED = ImageSize(256, 256)  # large images are reduced towards this size, which saves memory
_PROGRESS_FROM = 500  # number of images from which a progress bar is shown


def check_images(paths: Iterable[str | os.PathLike[str]], parallel: bool = True) -> list[tuple[Path, str]]:
    """List the images that cannot be read, each with its reason, in the order given.

    JPEG files are decoded at an eighth of their size, which reads the whole file but saves most of the
    arithmetic.

    Args:
        paths: image files; duplicates are checked once.
        parallel: decode in one thread per core.

    Returns:
        Path and reason of each damaged image.

    Examples:
        >>> check_images(["no-such-file.jpg"])
        [(PosixPath('no-such-file.jpg'), 'expected an image, got no such file')]
    """
    files = list(dict.fromkeys(map(Path, paths)))
    threads = (os.cpu_count() or 1) if parallel else 1
    with ThreadPoolExecutor(threads) as executor:
        found = track(
            executor.map(_fault, files), "Checking images", len(files), quiet=len(files) < _PROGRESS_FROM
        )
        return [(path, fault) for path, fault in zip(files, found, strict=True) if fault is not None]


def _fault(path: Path) -> str | None:
    """Return the reason why an image cannot be read; None if it can."""
    try:
        size = image_size(path)
        if not _decodes_as_jpeg(path, size.height, size.width):
            read_scaled_pixels(path, lambda _: _CHECKED)
    except UserError as error:
        return f"expected {error.expected}, got {error.got}"
    except (OSError, ValueError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _decodes_as_jpeg(path: Path, height: int, width: int) -> bool:
    """Return whether a file is a JPEG image that decodes; other formats are decoded completely."""
    try:
        with Image.open(path) as image:
            if image.format not in {"JPEG", "MPO"}:
                return False
            image.draft(image.mode, (max(width // 8, 1), max(height // 8, 1)))
            image.load()
            return True
    except Exception:  # read_scaled_pixels gives the reason
        return False

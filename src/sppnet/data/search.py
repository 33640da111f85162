"""Find the images of paths, folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sppnet.errors import UserError
from sppnet.inputs.documents import json_lines
from sppnet.inputs.sources import expand_glob

IMAGE_ENDINGS = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm",
    ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""The extensions of images in folders and globs, in lower case."""

OUTPUT_MARK = ".sppnet-predictions.jsonl"
"""The file that lists the outputs of `sppnet predict` in a folder; `find_images` skips these files."""


def find_images(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List the images of paths, folders and globs, without duplicates, in the given order.

    A file may have any extension. Folders are searched with their subfolders, except for hidden ones; globs
    may contain ``**``. Both give the files with one of `IMAGE_ENDINGS`, sorted. Outputs of ``sppnet
    predict`` are skipped.

    Args:
        sources: paths, folders and globs.

    Raises:
        UserError: a source does not exist or has no image.

    Examples:
        >>> from PIL import Image
        >>> folder = getfixture("tmp_path")
        >>> Image.new("RGB", (4, 3)).save(folder / "a.png")
        >>> [path.name for path in find_images([folder])]
        ['a.png']
    """
    found: dict[Path, None] = {}
    known: dict[Path, dict[str, dict[str, Any]]] = {}
    for source in sources:
        path = Path(source)
        if _is_file(path):
            images = [] if is_output(path, known) else [path]
        elif path.is_dir():
            images = images_under(path)
        elif glob.has_magic(os.fspath(source)):
            images = sorted(path for path in map(Path, expand_glob(source)) if is_image(path))
            images = [image for image in images if not is_output(image, known)]
        else:
            raise UserError(source, "an image, a folder or a glob", "no such file or folder")
        if not images and path.exists() and not path.is_dir():
            continue
        if not images:
            raise UserError(source, f"images ({' '.join(IMAGE_ENDINGS)})", "none")
        found.update(dict.fromkeys(images))
    if not found:
        got = "only outputs of sppnet predict" if sources else "none"
        raise UserError("sources", "at least one image, folder or glob", got)
    return list(found)


def is_image(path: Path) -> bool:
    """Return whether a path is a file with one of `IMAGE_ENDINGS` that is not hidden."""
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".") and path.is_file()


def images_under(folder: Path) -> list[Path]:
    """List the images of a folder and its subfolders, sorted, without hidden ones and outputs."""
    images: list[Path] = []
    known: dict[Path, dict[str, dict[str, Any]]] = {}
    for here, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(here, name) for name in names)
        images += [path for path in paths if is_image(path) and not is_output(path, known)]
    return sorted(images)


def written_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the last record of each output of ``sppnet predict`` in a folder, by file name."""
    try:
        content = (folder / OUTPUT_MARK).read_bytes()
    except OSError:
        return {}
    return {record["name"]: record for record in json_lines(content) if isinstance(record.get("name"), str)}


def is_output(path: Path, known: dict[Path, dict[str, dict[str, Any]]]) -> bool:
    """Return whether a file is an output of ``sppnet predict``; ``known`` caches the records of folders."""
    folder = path.parent
    if folder not in known:
        known[folder] = written_files(folder)
    record = known[folder].get(path.name)
    try:
        return record is not None and path.stat().st_size == record.get("size")
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name has a NUL character or is too long
        return False

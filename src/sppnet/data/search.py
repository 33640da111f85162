"""Finding the images that paths, folders and globs stand for."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from sppnet.errors import UserError

IMAGE_ENDINGS = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm",
    ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""The file endings, in lower case, that folders and globs are searched for."""

OUTPUT_MARK = ".sppnet-predictions.jsonl"
"""The file that lists what `sppnet predict` wrote into a folder; `find_images` skips those files."""


def find_images(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The images that paths, folders and globs stand for, each once, in the order given.

    A file is taken whatever its ending. Of folders (with all their subfolders, hidden ones left out) and of
    globs (``**`` included) the files with one of `IMAGE_ENDINGS` are taken, sorted. What ``sppnet predict``
    wrote is left out.

    Raises:
        UserError: a source that does not exist, or that holds no image.

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
            matches = glob.glob(os.path.expanduser(source), recursive=True)
            images = sorted(Path(name) for name in matches if is_image(Path(name)))
            images = [image for image in images if not is_output(image, known)]
        else:
            raise UserError(source, "an image, a folder or a glob", "no such file or folder")
        if not images and path.exists() and not path.is_dir():
            continue
        if not images:
            raise UserError(source, f"images ({' '.join(IMAGE_ENDINGS)})", "none")
        found.update(dict.fromkeys(images))
    if not found:
        got = "only images that sppnet predict drew" if sources else "none"
        raise UserError("sources", "at least one image, folder or glob", got)
    return list(found)


def is_image(path: Path) -> bool:
    """Whether a file has one of `IMAGE_ENDINGS`; hidden files, as macOS adds them, do not count."""
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".") and path.is_file()


def images_under(folder: Path) -> list[Path]:
    """The images of a folder and of its subfolders, hidden ones and our own output left out, sorted."""
    images: list[Path] = []
    known: dict[Path, dict[str, dict[str, Any]]] = {}
    for here, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(here, name) for name in names)
        images += [path for path in paths if is_image(path) and not is_output(path, known)]
    return sorted(images)


def written_files(folder: Path) -> dict[str, dict[str, Any]]:
    """What ``sppnet predict`` wrote into a folder, by file name: the last record of each in its mark."""
    try:
        lines = (folder / OUTPUT_MARK).read_bytes().splitlines()
    except OSError:
        return {}
    records: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            record: object = json.loads(line)
        except ValueError:  # a line that a killed writer left unfinished
            continue
        if isinstance(record, dict) and isinstance(record.get("name"), str):
            records[record["name"]] = cast("dict[str, Any]", record)
    return records


def is_output(path: Path, known: dict[Path, dict[str, dict[str, Any]]]) -> bool:
    """Whether a file is one that ``sppnet predict`` wrote, by its name and size; ``known`` caches marks."""
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
    except (OSError, ValueError):  # a name with a NUL, or one too long for the file system
        return False

"""Class folders: one folder of images a class, perhaps inside train, val and test."""

from __future__ import annotations

from pathlib import Path

from sppnet.data.ilsvrc import find_list, read_list
from sppnet.data.images import is_image
from sppnet.data.splits import SPLIT_FOLDERS, WHOLE
from sppnet.errors import UserError
from sppnet.structures import ClassificationItem, ClassificationSet


def is_folders(root: Path) -> bool:
    """Whether ``root``, or a folder train, val or test in it, holds folders of images."""
    return bool(folder_splits(root)) or any(_first_image(folder) for folder in _inner(root))


def folder_splits(root: Path) -> tuple[str, ...]:
    """Folders named like a split that hold folders of images, in the order of `SPLIT_FOLDERS`.

    Beside such a folder, one of loose images counts too if there is a list of their classes, as in ILSVRC.
    """
    sorted_ones = [
        name
        for name in SPLIT_FOLDERS
        if (root / name).is_dir() and any(_first_image(folder) for folder in _inner(root / name))
    ]
    return tuple(
        name for name in SPLIT_FOLDERS if name in sorted_ones or (sorted_ones and find_list(root, name))
    )


def read_folders(root: Path, split: str) -> ClassificationSet:
    """One split of a folder of class folders; the classes are those of all its splits, sorted.

    Images are taken from a class folder itself, not from folders in it; hidden files and folders
    are left out.

    Args:
        root: the folder.
        split: one of `folder_splits`, or ``""`` where there is none.

    Raises:
        UserError: no class folder, only one class, or a class folder without images.
    """
    splits = folder_splits(root)
    parts = [root / name for name in splits] or [root]
    names = tuple(sorted({folder.name for part in parts for folder in _inner(part)}))
    if len(names) < 2:
        raise UserError(root, "at least two class folders with images", ", ".join(names) or "none")
    if split in splits and find_list(root, split) and not _inner(root / split):
        return ClassificationSet(root, "folders", split, names, tuple(read_list(root, split, names)))
    numbers = {name: number for number, name in enumerate(names)}
    items: list[ClassificationItem] = []
    for folder in _inner(root / split):
        images = sorted(path for path in folder.iterdir() if is_image(path))
        if not images:
            raise UserError(folder, "images in every class folder", "none", "Fill or remove the folder")
        items += [ClassificationItem(path, numbers[folder.name]) for path in images]
    return ClassificationSet(root, "folders", split if splits else WHOLE, names, tuple(items))


def _inner(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))
    )


def _first_image(folder: Path) -> Path | None:
    return next((path for path in folder.iterdir() if is_image(path)), None)

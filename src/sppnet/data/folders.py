"""Class folders: one folder of images a class, perhaps inside train, val and test."""

from __future__ import annotations

from pathlib import Path

from sppnet.data.ilsvrc import find_list, read_list
from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.notes import counted, skipped
from sppnet.data.splits import WHOLE, split_folders
from sppnet.errors import UserError
from sppnet.inputs.paths import files_with, folders_in, is_file, listed
from sppnet.inputs.values import class_name
from sppnet.structures import ClassificationItem, ClassificationSet


def is_folders(root: Path) -> bool:
    """Whether ``root``, or a folder train, val or test in it, holds folders of images."""
    return bool(folder_splits(root)) or any(map(_has_images, _inner(root)))


def folder_splits(root: Path) -> tuple[str, ...]:
    """Folders named like a split that hold folders of images, in the order train, val, test.

    Beside such a folder, one of loose images counts too if there is a list of their classes, as in ILSVRC.
    """
    folders = split_folders(root)
    sorted_ones = [name for name, folder in folders.items() if any(map(_has_images, _inner(folder)))]
    return tuple(
        name for name in folders if name in sorted_ones or (sorted_ones and find_list(root, name) is not None)
    )


def class_folders(root: Path) -> list[Path]:
    """The folders of all classes, in every split."""
    parts = [root / name for name in folder_splits(root)] or [root]
    return [folder for part in parts for folder in _inner(part)]


def read_folders(root: Path, split: str) -> ClassificationSet:
    """One split of a folder of class folders; the classes are those of all its splits, sorted.

    Images are taken from a class folder itself, not from folders in it, which ``notes`` counts; hidden
    files and folders are left out.

    Args:
        root: the folder.
        split: one of `folder_splits`, or ``""`` where there is none.

    Raises:
        UserError: no class folder, only one class, or a class folder without images.
    """
    splits = folder_splits(root)
    names = tuple(sorted({class_name(folder.name, folder) for folder in class_folders(root)}))
    if len(names) < 2:
        raise UserError(root, "at least two class folders with images", ", ".join(names) or "none")
    if split in splits and find_list(root, split) and not _inner(root / split):
        return ClassificationSet(root, "folders", split, names, tuple(read_list(root, split, names)))
    numbers = {name: number for number, name in enumerate(names)}
    items: list[ClassificationItem] = []
    others: list[Path] = []
    deeper: list[str] = []
    for folder in _inner(root / split):
        files = [path for path in listed(folder) if is_file(path)]
        images = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS]
        if not images:
            raise UserError(folder, "images in every class folder", "none", "Fill or remove the folder.")
        others += files
        deeper += [f"{folder.name}/{inner.name}" for inner in folders_in(folder)]
        label = numbers[class_name(folder.name, folder)]
        items += [ClassificationItem(path, label) for path in images]
    notes = counted(deeper, "folder", "folders", "inside class folders left out") + skipped(others)
    return ClassificationSet(root, "folders", split if splits else WHOLE, names, tuple(items), notes)


def _inner(folder: Path) -> list[Path]:
    return [path for path in folders_in(folder) if not path.name.startswith("__")]


def _has_images(folder: Path) -> bool:
    return bool(files_with(folder, *IMAGE_ENDINGS))

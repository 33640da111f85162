"""Read class folders: one folder of images per class, optionally within train, val and test."""

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
    """Return whether a folder, or a folder train, val or test in it, has folders of images."""
    return bool(folder_splits(root)) or any(map(_has_images, _inner(root)))


def folder_splits(root: Path) -> tuple[str, ...]:
    """List the splits: folders with the name of a split and folders of images, in the order train, val, test.

    If there is such a folder, a folder of images with a list of their classes counts, too, as in ILSVRC.
    """
    folders = split_folders(root)
    with_classes = [name for name, folder in folders.items() if any(map(_has_images, _inner(folder)))]
    return tuple(
        name
        for name in folders
        if name in with_classes or (with_classes and find_list(root, name) is not None)
    )


def class_folders(root: Path) -> list[Path]:
    """List the folders of all classes in all splits."""
    parents = [root / name for name in folder_splits(root)] or [root]
    return [folder for parent in parents for folder in _inner(parent)]


def read_folders(root: Path, split: str) -> ClassificationSet:
    """Read a split of class folders; the classes are those of all splits, sorted.

    Subfolders of class folders and links to missing images are skipped and counted in ``notes``; hidden files
    and folders are skipped.

    Args:
        root: the folder.
        split: one of `folder_splits`, or ``""`` if there is none.

    Raises:
        UserError: there are fewer than two classes, or a class folder has no images.
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
    nested: list[str] = []
    broken: list[Path] = []
    for folder in _inner(root / split):
        entries = listed(folder)
        files = [path for path in entries if is_file(path)]
        broken += [path for path in entries if path.suffix.lower() in IMAGE_ENDINGS and not path.exists()]
        images = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS]
        if not images:
            raise UserError(folder, "images in every class folder", "none", "Fill or remove the folder.")
        others += files
        nested += [f"{folder.name}/{inner.name}" for inner in folders_in(folder)]
        label = numbers[class_name(folder.name, folder)]
        items += [ClassificationItem(path, label) for path in images]
    notes = counted(nested, "folder", "folders", "inside class folders left out") + skipped(others)
    notes += counted(broken, "link", "links", "to missing images left out")
    return ClassificationSet(root, "folders", split if splits else WHOLE, names, tuple(items), notes)


def _inner(folder: Path) -> list[Path]:
    return [path for path in folders_in(folder) if not path.name.startswith("__")]


def _has_images(folder: Path) -> bool:
    return bool(files_with(folder, *IMAGE_ENDINGS))

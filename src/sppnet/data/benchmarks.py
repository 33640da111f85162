"""Read the data sets of the paper from their original archives."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sppnet.data.folders import folder_splits, is_folders, read_folders
from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.splits import WHOLE
from sppnet.data.voc_folders import voc_root
from sppnet.errors import UserError
from sppnet.inputs.paths import files_with, is_file
from sppnet.inputs.text import reading, text_lines
from sppnet.structures import ClassificationSet

_CALTECH = "101_ObjectCategories"
PAGES = {
    "ILSVRC 2012": (
        "https://www.image-net.org/download-images (ILSVRC2012, an account is needed)",
        "train/WNID/*.JPEG and val/*.JPEG with val.txt, LOC_val_solution.csv or the development kit's "
        "ILSVRC2012_validation_ground_truth.txt and meta.mat next to them",
    ),
    "Caltech-101": (
        "https://data.caltech.edu/records/mzrjq-6wc02 (caltech-101.zip)",
        "101_ObjectCategories/CLASS/image_0001.jpg, or class folders of another set",
    ),
    "PASCAL VOC 2007": (
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/ (VOCtrainval and VOCtest, two .tar)",
        "VOCdevkit/VOC2007 with JPEGImages and ImageSets/Main/CLASS_trainval.txt, CLASS_test.txt",
    ),
}
"""The download page and the expected layout of each data set."""


def missing(path: Path, name: str) -> UserError:
    """Return the error for a missing data set, with its download page.

    Args:
        path: the folder.
        name: a key of `PAGES`.

    Examples:
        >>> missing(Path("nowhere"), "Caltech-101").got
        'no such folder'
    """
    page, layout = PAGES[name]
    got = "other files" if path.exists() else "no such folder"
    return UserError(path, f"{name}: {layout}", got, f"Download it from {page}.")


def read_caltech101(root: Path) -> ClassificationSet:
    """Read all images of Caltech-101, including the background class, or of other class folders.

    Args:
        root: the folder ``101_ObjectCategories``, a folder that contains it, or class folders of another
            data set, whose splits are joined.

    Returns:
        The images of all splits.

    Raises:
        UserError: the folder is missing; the message has the download page.

    Examples:
        >>> read_caltech101(Path("nowhere"))
        Traceback (most recent call last):
        sppnet.errors.UserError: nowhere: expected Caltech-101: 101_ObjectCategories/CLASS/...
    """
    inner = (root / _CALTECH, root / "caltech-101" / _CALTECH, root)
    home = next((path for path in inner if path.is_dir() and is_folders(path)), None)
    if home is None:
        raise missing(root, "Caltech-101")
    with reading(root):
        sets = [read_folders(home, split) for split in folder_splits(home) or (WHOLE,)]
    items = tuple(item for dataset in sets for item in dataset.items)
    notes = tuple(dict.fromkeys(note for dataset in sets for note in dataset.notes))
    return ClassificationSet(root, "folders", WHOLE, sets[0].names, items, notes)


def read_voc_labels(root: Path, split: str) -> tuple[list[Path], tuple[str, ...], Tensor]:
    """Read the classes of VOC images from ``ImageSets/Main/CLASS_SPLIT.txt``.

    Args:
        root: the folder that contains ``JPEGImages``, or a folder around it.
        split: ``"trainval"``, ``"test"``, ...

    Returns:
        N images, K class names, and labels, int64 ``[N, K]``: 1 for a class in the image, 0 for only
        difficult objects of it, -1 otherwise.

    Raises:
        UserError: lists or images are missing, or the lists differ in their images.

    Examples:
        >>> read_voc_labels(Path("nowhere"), "trainval")
        Traceback (most recent call last):
        sppnet.errors.UserError: nowhere: expected PASCAL VOC 2007: VOCdevkit/VOC2007 with ...
    """
    try:
        home = voc_root(root)
    except UserError:
        raise missing(root, "PASCAL VOC 2007") from None
    lists = [
        path for path in files_with(home / "ImageSets" / "Main", ".txt") if path.stem.endswith(f"_{split}")
    ]
    if not lists:
        raise missing(root, "PASCAL VOC 2007")
    columns: list[list[int]] = []
    first: list[str] = []
    for path in lists:
        words = [line.split() for _, line in text_lines(path)]
        keys = [line[0] for line in words]
        first = first or keys
        if keys != first or any(len(line) != 2 or line[1] not in ("-1", "0", "1") for line in words):
            raise UserError(path, f"the images of {lists[0].name}, each with -1, 0 or 1", "other lines")
        columns.append([int(line[1]) for line in words])
    images = [_image(home / "JPEGImages", key) for key in first]
    names = tuple(path.stem.removesuffix(f"_{split}") for path in lists)
    return images, names, torch.tensor(columns).T.contiguous()


def _image(folder: Path, key: str) -> Path:
    for ending in sorted(IMAGE_ENDINGS):
        if is_file(folder / f"{key}{ending}"):
            return folder / f"{key}{ending}"
    raise UserError(folder, f"the image {key[:200]}", "no such file")

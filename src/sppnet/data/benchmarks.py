"""The paper's data sets from their original archives, and where to get them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sppnet.data.folders import folder_splits, is_folders, read_folders
from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.splits import WHOLE
from sppnet.data.voc_places import voc_home
from sppnet.errors import UserError
from sppnet.inputs.paths import files_with, is_file
from sppnet.inputs.text import reading, text_lines
from sppnet.structures import ClassificationSet

_CALTECH = "101_ObjectCategories"
PAGES = {
    "ILSVRC 2012": (
        "https://www.image-net.org/download-images (ILSVRC2012, an account is needed)",
        "train/WNID/*.JPEG and val/*.JPEG with val.txt, LOC_val_solution.csv or the development kit's "
        "ILSVRC2012_validation_ground_truth.txt and meta.mat beside them",
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
"""By data set the page to download it from and the layout that is wanted."""


def missing(path: Path, name: str) -> UserError:
    """The error that says where a data set comes from."""
    page, layout = PAGES[name]
    got = "other files" if path.exists() else "no such folder"
    return UserError(path, f"{name}: {layout}", got, f"Download it from {page}.")


def read_caltech101(root: Path) -> ClassificationSet:
    """All images of Caltech-101, its background class included, or of any class folders.

    Args:
        root: the folder ``101_ObjectCategories``, one around it, or class folders of another set, whose
            splits are joined.

    Raises:
        UserError: no such folders; says where to get them.
    """
    inner = (root / _CALTECH, root / "caltech-101" / _CALTECH, root)
    home = next((path for path in inner if path.is_dir() and is_folders(path)), None)
    if home is None:
        raise missing(root, "Caltech-101")
    with reading(root):
        parts = [read_folders(home, split) for split in folder_splits(home) or (WHOLE,)]
    items = tuple(item for part in parts for item in part.items)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return ClassificationSet(root, "folders", WHOLE, parts[0].names, items, notes)


def read_voc_labels(root: Path, split: str) -> tuple[list[Path], tuple[str, ...], Tensor]:
    """Which classes VOC's images show, from ``ImageSets/Main/CLASS_SPLIT.txt``.

    Args:
        root: the folder of ``JPEGImages``, or one around it.
        split: ``"trainval"``, ``"test"``, ...

    Returns:
        N images, K class names, and int64 ``[N, K]``: 1 shows it, -1 does not, 0 only difficult ones.

    Raises:
        UserError: no such lists, lists that do not belong together, or an image that is not there.
    """
    try:
        home = voc_home(root)
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

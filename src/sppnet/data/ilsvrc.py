"""ILSVRC's classification data: training folders named by wnid, and a folder of loose images with a list.

Three lists are in use: ``val.txt``, an image and the number of its wnid among the sorted ones a line;
``LOC_val_solution.csv``, an image and its wnid with boxes; the development kit's
``ILSVRC2012_validation_ground_truth.txt``, a number a line, which its ``meta.mat`` turns into wnids.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from sppnet.data.images import is_image
from sppnet.errors import UserError
from sppnet.structures import ClassificationItem

_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def find_list(root: Path, split: str) -> Path | None:
    """The list of the classes of the loose images in ``root/split``, or None."""
    if not (root / split).is_dir():
        return None
    names = [f"{split}.txt", f"LOC_{split}_solution.csv"] + ([_TRUTH] if split == "val" else [])
    return next((root / name for name in names if (root / name).is_file()), None)


def read_list(root: Path, split: str, names: tuple[str, ...]) -> list[ClassificationItem]:
    """The loose images of a split with their class numbers, sorted by path.

    Args:
        root: the folder with ``train``, the split's folder and its list.
        split: such as ``"val"``.
        names: the wnids, sorted.

    Raises:
        UserError: an image that the list lacks or names twice, or a class that there is not.
    """
    path = find_list(root, split)
    assert path is not None
    images = sorted(p for p in (root / split).iterdir() if is_image(p))
    if not images:
        raise UserError(root / split, "images", "none")
    classes = _read(path, images)
    numbers = {name: number for number, name in enumerate(names)}
    items: list[ClassificationItem] = []
    for image in images:
        said = classes.get(image.stem)
        if said is None:
            raise UserError(path, f"the class of {image.name}", "no line of it")
        number = int(said) if said.isdigit() else numbers.get(said, -1)
        if not 0 <= number < len(names):
            raise UserError(path, f"one of the {len(names)} classes of train", f"{said} for {image.name}")
        items.append(ClassificationItem(image, number))
    return items


def _read(path: Path, images: list[Path]) -> dict[str, str]:
    """By the stem of an image's file its wnid, or its number among the sorted ones."""
    lines = path.read_text(encoding="utf-8").split("\n")
    filled = [line.strip() for line in lines if line.strip()]
    if path.suffix == ".csv":
        rows = [row for row in csv.reader(filled) if len(row) >= 2 and row[0] != "ImageId"]
        return {Path(row[0]).stem: row[1].split()[0] for row in rows}
    if path.name == _TRUTH:
        wnids = _wnids(path.parent / _META)
        if len(filled) != len(images):
            raise UserError(path, f"a line for each of {len(images)} images", f"{len(filled)} lines")
        return {image.stem: wnids[int(n)] for image, n in zip(images, filled, strict=True)}
    found: dict[str, str] = {}
    for number, line in enumerate(filled, 1):
        words = line.split()
        if len(words) != 2:
            raise UserError(f"{path}, line {number}", "an image and its class", repr(line))
        found[Path(words[0]).stem] = words[1]
    return found


def _wnids(path: Path) -> dict[int, str]:
    """The development kit's numbers of the wnids."""
    if not path.is_file():
        raise UserError(path, "the development kit's list of classes", "no such file", "Put it by the list.")
    from scipy.io import loadmat

    synsets: Any = loadmat(str(path), squeeze_me=True)["synsets"]
    return {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}

"""ILSVRC's classification data: training folders named by wnid, and a folder of loose pictures with a list.

Three lists are in use: ``val.txt``, a picture and the number of its wnid among the sorted ones a line;
``LOC_val_solution.csv``, a picture and its wnid with boxes; the development kit's
``ILSVRC2012_validation_ground_truth.txt``, a number a line, which its ``meta.mat`` turns into wnids.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from sppnet.data.pictures import is_picture
from sppnet.errors import UserError
from sppnet.structures import ClassificationItem

_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def find_list(root: Path, split: str) -> Path | None:
    """The list of the classes of the loose pictures in ``root/split``, or None."""
    if not (root / split).is_dir():
        return None
    names = [f"{split}.txt", f"LOC_{split}_solution.csv"] + ([_TRUTH] if split == "val" else [])
    return next((root / name for name in names if (root / name).is_file()), None)


def read_list(root: Path, split: str, names: tuple[str, ...]) -> list[ClassificationItem]:
    """The loose pictures of a split with their class numbers, sorted by path.

    Args:
        root: the folder with ``train``, the split's folder and its list.
        split: such as ``"val"``.
        names: the wnids, sorted.

    Raises:
        UserError: a picture that the list lacks or names twice, or a class that there is not.
    """
    path = find_list(root, split)
    assert path is not None
    pictures = sorted(p for p in (root / split).iterdir() if is_picture(p))
    if not pictures:
        raise UserError(root / split, "pictures", "none")
    classes = _read(path, pictures)
    numbers = {name: number for number, name in enumerate(names)}
    items: list[ClassificationItem] = []
    for picture in pictures:
        said = classes.get(picture.stem)
        if said is None:
            raise UserError(path, f"the class of {picture.name}", "no line of it")
        number = int(said) if said.isdigit() else numbers.get(said, -1)
        if not 0 <= number < len(names):
            raise UserError(path, f"one of the {len(names)} classes of train", f"{said} for {picture.name}")
        items.append(ClassificationItem(picture, number))
    return items


def _read(path: Path, pictures: list[Path]) -> dict[str, str]:
    """By the stem of a picture's file its wnid, or its number among the sorted ones."""
    lines = path.read_text(encoding="utf-8").split("\n")
    filled = [line.strip() for line in lines if line.strip()]
    if path.suffix == ".csv":
        rows = [row for row in csv.reader(filled) if len(row) >= 2 and row[0] != "ImageId"]
        return {Path(row[0]).stem: row[1].split()[0] for row in rows}
    if path.name == _TRUTH:
        wnids = _wnids(path.parent / _META)
        if len(filled) != len(pictures):
            raise UserError(path, f"a line for each of {len(pictures)} pictures", f"{len(filled)} lines")
        return {picture.stem: wnids[int(n)] for picture, n in zip(pictures, filled, strict=True)}
    found: dict[str, str] = {}
    for number, line in enumerate(filled, 1):
        words = line.split()
        if len(words) != 2:
            raise UserError(f"{path}, line {number}", "a picture and its class", repr(line))
        found[Path(words[0]).stem] = words[1]
    return found


def _wnids(path: Path) -> dict[int, str]:
    """The development kit's numbers of the wnids."""
    if not path.is_file():
        raise UserError(path, "the development kit's list of classes", "no such file", "Put it by the list.")
    from scipy.io import loadmat

    synsets: Any = loadmat(str(path), squeeze_me=True)["synsets"]
    return {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}

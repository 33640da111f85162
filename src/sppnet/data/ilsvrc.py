"""Read the list of classes of the validation images of ILSVRC.

Three lists are in use: ``val.txt``, with an image and the index of its wnid among the sorted wnids per line;
``LOC_val_solution.csv``, with an image, its wnid and boxes per line; and
``ILSVRC2012_validation_ground_truth.txt`` of the development kit, with a number per line, which ``meta.mat``
maps to wnids.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from sppnet.data.images import IMAGE_ENDINGS
from sppnet.errors import UserError
from sppnet.inputs.mat import read_mat
from sppnet.inputs.paths import files_with, is_file, is_folder, name_parts
from sppnet.inputs.text import shown, text_lines
from sppnet.inputs.values import whole
from sppnet.structures import ClassificationItem

_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def find_list(root: Path, split: str) -> Path | None:
    """Return the list of classes of the images in ``root/split``; None if there is none."""
    if not is_folder(root / split):
        return None
    spellings = dict.fromkeys((split, split.lower()))
    names = [name for one in spellings for name in (f"{one}.txt", f"LOC_{one}_solution.csv")]
    names += [_TRUTH] if split.lower() == "val" else []
    return next((root / name for name in names if is_file(root / name)), None)


def read_list(root: Path, split: str, names: tuple[str, ...]) -> list[ClassificationItem]:
    """Read the images of a split with their class numbers, sorted by path.

    Args:
        root: the folder with ``train``, the folder of the split and the list.
        split: the split, such as ``"val"``.
        names: the wnids, sorted.

    Raises:
        UserError: an image is missing from the list or duplicate, or a class is unknown.
    """
    path = find_list(root, split)
    assert path is not None
    images = files_with(root / split, *IMAGE_ENDINGS)
    if not images:
        raise UserError(root / split, "images", "none")
    classes = _read(path, images)
    numbers = {name: number for number, name in enumerate(names)}
    items: list[ClassificationItem] = []
    for image in images:
        label = classes.get(image.stem)
        if label is None:
            raise UserError(path, f"the class of {image.name}", "no such line")
        number = numbers.get(label, -1)
        if number < 0 and label.isascii() and label.isdigit():
            number = whole(label, path, f"the class of {image.name}")
        if not 0 <= number < len(names):
            raise UserError(
                path, f"one of the {len(names)} classes of train", f"{shown(label)} for {image.name}"
            )
        items.append(ClassificationItem(image, number))
    return items


def _read(path: Path, images: list[Path]) -> dict[str, str]:
    """Return the wnid, or the index among the sorted wnids, by the stem of the image file."""
    lines = text_lines(path)
    if path.name == _TRUTH:
        wnids = _wnids(path.parent / _META)
        if len(lines) != len(images):
            raise UserError(path, f"a line for each of {len(images)} images", f"{len(lines)} lines")
        return {
            image.stem: _wnid(f"{path}, line {number}", line, wnids)
            for image, (number, line) in zip(images, lines, strict=True)
        }
    found: dict[str, str] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        fields = _csv_words(where, line) if path.suffix == ".csv" else line.split()
        if fields[:1] == ["ImageId"]:
            continue
        if len(fields) != 2 or not name_parts(fields[0]):
            raise UserError(where, "an image and its class", shown(line))
        stem = Path(name_parts(fields[0])[-1]).stem
        if found.setdefault(stem, fields[1]) != fields[1]:
            raise UserError(
                where, f"one class of {shown(stem)}", f"{shown(found[stem])} and {shown(fields[1])}"
            )
    return found


def _csv_words(where: str, line: str) -> list[str]:
    """Return an image and its first wnid, without boxes and further objects."""
    try:
        row = next(csv.reader([line]))
    except csv.Error as error:
        raise UserError(where, "a line of a CSV file", error) from error
    return [row[0], *row[1].split()[:1]] if len(row) >= 2 else row


def _wnid(where: str, line: str, wnids: dict[int, str]) -> str:
    number = whole(line, where, f"one of {len(wnids)} class numbers")
    if number not in wnids:
        raise UserError(where, f"one of {len(wnids)} class numbers", number)
    return wnids[number]


def _wnids(path: Path) -> dict[int, str]:
    """Read the wnid of each class number of the development kit."""
    if not is_file(path):
        raise UserError(
            path, "the development kit's list of classes", "no such file", "Put it next to the list."
        )
    synsets = read_mat(path).get("synsets")
    if not isinstance(synsets, dict) or not {"ILSVRC2012_ID", "WNID"} <= synsets.keys():
        raise UserError(path, "a structure synsets with ILSVRC2012_ID and WNID", "none")
    found: dict[int, str] = {}
    for number, wnid in zip(synsets["ILSVRC2012_ID"].flat, synsets["WNID"].flat, strict=True):
        values = np.asarray(number).reshape(-1)
        if len(values) != 1 or values.dtype.kind not in "iuf" or not isinstance(wnid, str):
            raise UserError(path, "a number and a wnid for each class", f"{shown(number)} and {shown(wnid)}")
        found[whole(values[0].item(), path)] = wnid
    return found

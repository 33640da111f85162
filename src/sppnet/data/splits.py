"""The names of a data set's parts, and which of them is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from sppnet.errors import UserError
from sppnet.inputs.paths import folders_in

Purpose: TypeAlias = Literal["fit", "evaluate"]

WHOLE = ""
"""The name of the only part of a data set without splits: everything."""

SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "test", "testing")
"""Folder names that hold a part of a data set, not a class of it."""

_SAME = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def plain_name(split: str) -> str:
    """A split's name without its year and in one spelling: ``train2017`` is train, ``valid`` is val."""
    name = re.sub(r"[-_]?\d{4}$", "", split.lower())
    return _SAME.get(name, name)


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for, in one spelling; None for any other name.

    Examples:
        >>> split_of("VALID"), split_of("train2017"), split_of("cats")
        ('val', 'train', None)
    """
    plain = plain_name(name)
    return plain if plain in {"train", "val", "test", "trainval"} else None


def split_folders(root: Path) -> dict[str, Path]:
    """The folders in ``root`` with a split's name in any case, in the order train, val, test."""
    order = {name: number for number, name in enumerate(SPLIT_FOLDERS)}
    found = [folder for folder in folders_in(root) if folder.name.lower() in order]
    return {folder.name: folder for folder in sorted(found, key=lambda folder: order[folder.name.lower()])}


def pick_split(where: object, wanted: str, available: Sequence[str]) -> str:
    """The split that a user means: the one of exactly this name, or the only one like it.

    Raises:
        UserError: there is none, or several are like it; it lists those that there are.
    """
    if wanted in available or (wanted == WHOLE and not available):
        return wanted
    alike = [name for name in available if wanted and plain_name(name) == plain_name(wanted)]
    if len(alike) == 1:
        return alike[0]
    if not available:
        raise UserError(where, "no split, as the data set is not divided", repr(wanted), "Leave it out.")
    raise UserError(where, f"one of the splits {', '.join(available)}", repr(wanted))


def serves_both(available: Sequence[str]) -> bool:
    """Whether fitting and evaluation would both take all images: no split, or one of a name of its own."""
    if not available:
        return True
    return len(available) == 1 and plain_name(available[0]) not in {"train", "trainval", "val", "test"}


def choose_split(where: object, available: Sequence[str], purpose: Purpose) -> str:
    """The split for a purpose when none is named; `WHOLE` where the data set is not divided.

    For ``fit`` it is train, else trainval; for ``evaluate`` val, else test. A data set with one split of
    another name, as labelling tools write it, has that one for both.

    Raises:
        UserError: no such split, or several; it lists those that there are.
    """
    if not available:
        return WHOLE
    order = ("train", "trainval") if purpose == "fit" else ("val", "test")
    for name in order:
        if name in available:
            return name
        alike = [split for split in available if plain_name(split) == name]
        if len(alike) == 1:
            return alike[0]
    if serves_both(available):
        return available[0]
    job = "fit on" if purpose == "fit" else "evaluate on"
    raise UserError(
        where, f"a split {' or '.join(order)} to {job}", ", ".join(available), "Name one of them."
    )

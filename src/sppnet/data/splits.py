"""Names of splits, and the choice of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from sppnet.errors import UserError
from sppnet.inputs.paths import folders_in

Purpose: TypeAlias = Literal["fit", "evaluate"]

WHOLE = ""
"""The name of the split of an undivided data set: all images."""

SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "test", "testing")
"""Folder names that are splits, not classes."""

_SAME = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def plain_name(split: str) -> str:
    """Normalise the name of a split: ``train2017`` becomes train, ``valid`` becomes val."""
    name = re.sub(r"[-_]?\d{4}$", "", split.lower())
    return _SAME.get(name, name)


def split_of(name: str) -> str | None:
    """Return the normalised split of a folder name; None for other names.

    Examples:
        >>> split_of("VALID"), split_of("train2017"), split_of("cats")
        ('val', 'train', None)
    """
    plain = plain_name(name)
    return plain if plain in {"train", "val", "test", "trainval"} else None


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders in ``root`` with the name of a split, in any case, in the order train, val, test."""
    order = {name: number for number, name in enumerate(SPLIT_FOLDERS)}
    found = [folder for folder in folders_in(root) if folder.name.lower() in order]
    return {folder.name: folder for folder in sorted(found, key=lambda folder: order[folder.name.lower()])}


def pick_split(where: object, requested: str, available: Sequence[str]) -> str:
    """Return the split with a given name, or the only split whose normalised name matches.

    Raises:
        UserError: no split or several splits match; the message lists the splits.
    """
    if requested in available or (requested == WHOLE and not available):
        return requested
    matching = [name for name in available if requested and plain_name(name) == plain_name(requested)]
    if len(matching) == 1:
        return matching[0]
    if not available:
        raise UserError(
            where, "no split, because the data set is not divided", repr(requested), "Leave it out."
        )
    raise UserError(where, f"one of the splits {', '.join(available)}", repr(requested))


def serves_both(available: Sequence[str]) -> bool:
    """Return whether fitting and evaluation use the same images: no split or a single other one."""
    if not available:
        return True
    return len(available) == 1 and plain_name(available[0]) not in {"train", "trainval", "val", "test"}


def choose_split(where: object, available: Sequence[str], purpose: Purpose) -> str:
    """Return the default split for a purpose; `WHOLE` if the data set is not divided.

    For ``fit`` it is train, else trainval; for ``evaluate`` it is val, else test. A single split of another
    name, as written by labelling tools, is used for both.

    Raises:
        UserError: no split or several splits match; the message lists the splits.
    """
    if not available:
        return WHOLE
    order = ("train", "trainval") if purpose == "fit" else ("val", "test")
    for name in order:
        if name in available:
            return name
        matching = [split for split in available if plain_name(split) == name]
        if len(matching) == 1:
            return matching[0]
    if serves_both(available):
        return available[0]
    job = "fit on" if purpose == "fit" else "evaluate on"
    raise UserError(
        where, f"a split {' or '.join(order)} to {job}", ", ".join(available), "Name one of them."
    )

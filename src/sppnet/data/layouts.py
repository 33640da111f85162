"""Reading a labelled folder whatever its layout: recognised by looking, not by being told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from sppnet.data.coco import coco_splits, is_coco, read_coco
from sppnet.data.folders import folder_splits, is_folders, read_folders
from sppnet.data.guesses import check_class_folders, foreign_format
from sppnet.data.images import images_under
from sppnet.data.splits import Purpose, choose_split, pick_split
from sppnet.data.voc import is_voc, read_voc, voc_splits
from sppnet.data.yolo import is_yolo, read_yolo, yolo_splits
from sppnet.errors import UserError
from sppnet.inputs.paths import is_file, is_folder
from sppnet.inputs.text import reading
from sppnet.structures import ClassificationSet, DetectionSet

Layout: TypeAlias = Literal["voc", "coco", "yolo", "folders"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
"""The layouts, in the order in which `recognise` looks for them."""

PathLike: TypeAlias = str | os.PathLike[str]

_LOOKED_FOR = (
    "JPEGImages with Annotations or XML beside the images (VOC), annotations/*.json (COCO), data.yaml or "
    "images with labels (YOLO), or a folder of images for each class"
)


def recognise(path: PathLike) -> Layout:
    """The layout of a labelled folder, or of a YOLO yaml.

    Class folders are recognised last, and only where nothing speaks against them: labels beside the
    images, or folders with names such as ``images``, ``masks`` and ``train`` in the place of classes.

    Raises:
        UserError: no such path, an empty folder, labels in a format that is not read, or a folder where
            nothing fits; it lists what was looked for.
    """
    root = Path(path)
    _check_exists(root)
    with reading(root):
        if is_file(root):
            if is_yolo(root):
                return "yolo"
            raise UserError(root, "a folder of labelled images", "a file")
        if not any(root.iterdir()):
            raise UserError(root, "a folder of labelled images", "an empty folder")
        if is_voc(root):
            return "voc"
        if is_coco(root):
            return "coco"
        if is_yolo(root):
            return "yolo"
        other = foreign_format(root)
        if other is not None:
            raise UserError(root, _LOOKED_FOR, other, "Convert it to COCO.")
        if is_folders(root):
            check_class_folders(root)
            return "folders"
        got = "images without labels" if images_under(root) else "none of these"
        raise UserError(root, _LOOKED_FOR, got)


def splits(path: PathLike, layout: str | None = None) -> tuple[str, ...]:
    """The names of a data set's splits; none where it is not divided.

    Args:
        path: the data set.
        layout: one of `LAYOUTS`; recognised when None.

    Raises:
        UserError: as `recognise`; an unknown layout.
    """
    root = Path(path)
    found = _layout(root, layout)
    with reading(root):
        match found:
            case "voc":
                return voc_splits(root)
            case "coco":
                return coco_splits(root)
            case "yolo":
                return yolo_splits(root)
            case "folders":
                return folder_splits(root)


def default_split(path: PathLike, purpose: Purpose, layout: str | None = None) -> str:
    """The split to use when the user names none; ``""`` where the data set is not divided.

    For ``"fit"`` it is train, else trainval; for ``"evaluate"`` val, else test (years and other
    spellings allowed: train2017, valid). A single split of another name serves both.

    Raises:
        UserError: no such split; it lists those that there are.
    """
    return choose_split(path, splits(path, layout), purpose)


def read_detection(path: PathLike, split: str | None = None, layout: str | None = None) -> DetectionSet:
    """Images with boxes, in VOC, COCO or YOLO layout.

    Args:
        path: the data set: a folder, or a YOLO yaml.
        split: one of `splits`, years and other spellings allowed; None is ``default_split(path, "fit")``.
        layout: ``"voc"``, ``"coco"`` or ``"yolo"``; recognised when None.

    Raises:
        UserError: an unknown layout or split, class folders, no image, or a file at fault: the message
            names it and the object in it.
    """
    root = Path(path)
    found = _layout(root, layout)
    if found == "folders":
        wanted = "images with boxes in VOC, COCO or YOLO layout"
        raise UserError(root, wanted, "class folders", "They are for classification.")
    part = _split(root, split, found)
    with reading(root):
        match found:
            case "voc":
                read = read_voc(root, part)
            case "coco":
                read = read_coco(root, part)
            case "yolo":
                read = read_yolo(root, part)
    if not read.items:
        raise UserError(root, f"images in {_said(part)}", "none")
    return read


def read_classification(
    path: PathLike, split: str | None = None, layout: str | None = None
) -> ClassificationSet:
    """Images of one class each, in class folders.

    Args:
        path: the folder.
        split: one of `splits`, other spellings allowed; None is ``default_split(path, "fit")``.
        layout: ``"folders"``; recognised when None.

    Raises:
        UserError: an unknown layout or split, another layout, fewer than two classes, or a class folder
            without images.
    """
    root = Path(path)
    found = _layout(root, layout)
    if found != "folders":
        raise UserError(root, "a folder of images for each class", f"boxes in {found.upper()} layout")
    part = _split(root, split, found)
    with reading(root):
        read = read_folders(root, part)
    if not read.items:
        raise UserError(root, f"images in {_said(part)}", "none")
    return read


def _layout(root: Path, layout: str | None) -> Layout:
    if layout is None:
        return recognise(root)
    if layout not in LAYOUTS:
        raise UserError("layout", f"one of {', '.join(LAYOUTS)}", repr(layout))
    _check_exists(root)
    return layout


def _check_exists(root: Path) -> None:
    if not is_folder(root) and not is_file(root):
        raise UserError(str(root)[:300], "a folder of labelled images", "no such folder")


def _split(root: Path, split: str | None, layout: Layout) -> str:
    if split is None:
        return default_split(root, "fit", layout)
    return pick_split(root, split, splits(root, layout))


def _said(split: str) -> str:
    return f"the split {split}" if split else "it"

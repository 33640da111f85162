"""Read a labelled data set of any supported layout, which is detected automatically."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

from sppnet.data.formats import FORMATS, Format
from sppnet.data.guesses import check_class_folders, foreign_format
from sppnet.data.images import images_under
from sppnet.data.splits import Purpose, choose_split, pick_split
from sppnet.errors import UserError
from sppnet.inputs.paths import is_file, is_folder
from sppnet.inputs.text import reading
from sppnet.structures import ClassificationSet, DetectionSet

PathLike: TypeAlias = str | os.PathLike[str]
AnySet = TypeVar("AnySet", ClassificationSet, DetectionSet)

_SUPPORTED = (
    "JPEGImages with Annotations or XML next to the images (VOC), annotations/*.json (COCO), data.yaml or "
    "images with labels (YOLO), or a folder of images per class"
)


def layout_names() -> tuple[str, ...]:
    """Return the names of the layouts, in the order in which `recognise` tests them.

    Examples:
        >>> layout_names()
        ('voc', 'coco', 'yolo', 'folders')
    """
    return tuple(one.name for one in FORMATS)


def recognise(path: PathLike) -> str:
    """Detect the layout of a labelled folder or of a YOLO yaml.

    Class folders are tested last. They may have no label files next to the images, and no names such as
    ``images``, ``masks`` and ``train``.

    Raises:
        UserError: the path is missing or empty, or its layout or label format is unknown; the message lists
            the supported layouts.

    Examples:
        >>> folder = getfixture("tmp_path")
        >>> for name in ("annotations", "images"):
        ...     (folder / name).mkdir()
        >>> _ = (folder / "annotations" / "instances_val.json").write_text("{}")
        >>> recognise(folder)
        'coco'
    """
    root = Path(path)
    _check_exists(root)
    with reading(root):
        if is_file(root):
            found = next((one for one in _with_boxes() if one.recognise(root)), None)
            if found is None:
                raise UserError(root, "a folder of labelled images", "a file")
            return found.name
        if not any(root.iterdir()):
            raise UserError(root, "a folder of labelled images", "an empty folder")
        for one in _with_boxes():
            if one.recognise(root):
                return one.name
        other = foreign_format(root)
        if other is not None:
            raise UserError(root, _SUPPORTED, other, "Convert it to COCO.")
        for one in FORMATS:
            if one.classification is not None and one.recognise(root):
                check_class_folders(root)
                return one.name
        got = "images without labels" if images_under(root) else "none of these"
        raise UserError(root, _SUPPORTED, got)


def splits(path: PathLike, layout: str | None = None) -> tuple[str, ...]:
    """List the splits of a data set; empty if it is not divided.

    Args:
        path: the data set.
        layout: one of `layout_names`; detected automatically when None.

    Raises:
        UserError: the path is missing, or its layout is unknown.

    Examples:
        >>> folder = getfixture("tmp_path") / "annotations"
        >>> folder.mkdir()
        >>> _ = (folder / "instances_val.json").write_text("{}")
        >>> splits(folder.parent, "coco")
        ('val',)
    """
    root = Path(path)
    found = _layout(root, layout)
    with reading(root):
        return found.splits(root)


def default_split(path: PathLike, purpose: Purpose, layout: str | None = None) -> str:
    """Return the default split for a purpose; ``""`` if the data set is not divided.

    For ``"fit"`` it is train, else trainval; for ``"evaluate"`` it is val, else test. Years and other
    spellings are allowed (train2017, valid). A single split of another name is used for both purposes.

    Args:
        path: the data set.
        purpose: ``"fit"`` or ``"evaluate"``.
        layout: one of `layout_names`; detected automatically when None.

    Raises:
        UserError: there is no such split; the message lists the splits.

    Examples:
        >>> folder = getfixture("tmp_path") / "annotations"
        >>> folder.mkdir()
        >>> for split in ("train2017", "val2017"):
        ...     _ = (folder / f"instances_{split}.json").write_text("{}")
        >>> default_split(folder.parent, "evaluate", "coco")
        'val2017'
    """
    return choose_split(path, splits(path, layout), purpose)


def read_detection(path: PathLike, split: str | None = None, layout: str | None = None) -> DetectionSet:
    """Read a split of images with boxes, in VOC, COCO or YOLO layout.

    Args:
        path: the data set: a folder, or a YOLO yaml.
        split: one of `splits`, in any spelling; ``default_split(path, "fit")`` when None.
        layout: ``"voc"``, ``"coco"`` or ``"yolo"``; detected automatically when None.

    Raises:
        UserError: the layout or the split is unknown, the data set has class folders or no image, or a file
            is invalid; the message names the file and the object in it.

    Examples:
        >>> read_detection("nowhere")
        Traceback (most recent call last):
        sppnet.errors.UserError: nowhere: expected a folder of labelled images, got no such folder
    """
    root = Path(path)
    found = _layout(root, layout)
    if found.detection is None:
        expected = "images with boxes in VOC, COCO or YOLO layout"
        raise UserError(root, expected, "class folders", "They are for classification.")
    return _read(root, _split(root, split, found), found.detection)


def read_classification(
    path: PathLike, split: str | None = None, layout: str | None = None
) -> ClassificationSet:
    """Read a split of class folders.

    Args:
        path: the folder.
        split: one of `splits`, in any spelling; ``default_split(path, "fit")`` when None.
        layout: ``"folders"``; detected automatically when None.

    Raises:
        UserError: the layout or the split is unknown, there are fewer than two classes, or a class folder has
            no images.

    Examples:
        >>> read_classification("nowhere")
        Traceback (most recent call last):
        sppnet.errors.UserError: nowhere: expected a folder of labelled images, got no such folder
    """
    root = Path(path)
    found = _layout(root, layout)
    if found.classification is None:
        raise UserError(root, "a folder of images per class", f"boxes in {found.name.upper()} layout")
    return _read(root, _split(root, split, found), found.classification)


def _with_boxes() -> list[Format]:
    return [one for one in FORMATS if one.detection is not None]


def _layout(root: Path, layout: str | None) -> Format:
    name = recognise(root) if layout is None else layout
    found = {one.name: one for one in FORMATS}.get(name)
    if found is None:
        raise UserError("layout", f"one of {', '.join(layout_names())}", repr(layout))
    _check_exists(root)
    return found


def _check_exists(root: Path) -> None:
    if not is_folder(root) and not is_file(root):
        raise UserError(str(root)[:300], "a folder of labelled images", "no such folder")


def _split(root: Path, split: str | None, layout: Format) -> str:
    if split is None:
        return default_split(root, "fit", layout.name)
    return pick_split(root, split, splits(root, layout.name))


def _read(root: Path, split: str, reader: Callable[[Path, str], AnySet]) -> AnySet:
    with reading(root):
        dataset = reader(root, split)
    if not dataset.items:
        raise UserError(root, f"images in {f'the split {split}' if split else 'the data set'}", "none")
    return dataset

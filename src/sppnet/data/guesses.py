"""Detect folders that are not classes, and label formats that are not supported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sppnet.data.folders import class_folders
from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.splits import SPLIT_FOLDERS, split_of
from sppnet.errors import UserError
from sppnet.inputs.paths import files_with, folders_in
from sppnet.inputs.text import read_bytes
from sppnet.inputs.words import shortened

NOT_CLASSES = frozenset(SPLIT_FOLDERS) | {
    *("image", "images", "img", "imgs", "jpegimages", "pictures", "photos", "frames"),
    *("label", "labels", "annotation", "annotations", "ann", "xml", "xmls", "json", "jsons", "txt", "bbox"),
    *("mask", "masks", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "depth"),
    *("imagesets", "gt", "groundtruth", "ground_truth", "data", "dataset"),
}
"""Names of folders, in lower case, that are classes only with ``--format folders``."""

_LABELS = {".xml": "XML", ".txt": "text", ".json": "JSON"}
_EXAMINED = 20  # label files per folder whose content is examined
_FORMATS = (
    ("labelme JSON", ".json", (b'"shapes"', b'"imagePath"')),
    ("VGG Image Annotator JSON", ".json", (b'"regions"', b'"shape_attributes"')),
    ("Label Studio JSON", ".json", (b'"from_name"', b'"to_name"')),
    ("Supervisely JSON", ".json", (b'"classTitle"', b'"points"')),
    ("CreateML JSON", ".json", (b'"coordinates"', b'"label"', b'"image')),
    ("CVAT XML", ".xml", (b"<annotations", b"<image ")),
)
_HINT = "If every folder is a class, pass --format folders (layout='folders')."


def foreign_format(root: Path) -> str | None:
    """Return a known but unsupported label format in ``root`` or up to two folders below, else None.

    Examples:
        >>> foreign_format(Path("nowhere")) is None
        True
    """
    for path in _label_files(root):
        content = read_bytes(path).replace(b"\0", b"")
        for name, ending, keys in _FORMATS:
            if path.suffix.lower() == ending and all(word in content for word in keys):
                return f"{name} ({path.name}), which is not supported"
    return None


def _label_files(root: Path) -> Iterator[Path]:
    inner = folders_in(root)
    for folder in (root, *inner, *(nested for one in inner for nested in folders_in(one))):
        for ending in (".json", ".xml"):
            yield from files_with(folder, ending)[:_EXAMINED]


def check_class_folders(root: Path) -> None:
    """Check that the folders of a data set are classes.

    Raises:
        UserError: a folder has a name such as ``images`` or ``train``, or has label files next to images.
    """
    folders = class_folders(root)
    reserved = [folder for folder in folders if _is_reserved(folder.name)]
    expected = "a folder of images per class"
    if reserved:
        got = f"the folders {shortened([str(folder.relative_to(root)) for folder in reserved])}"
        if all(split_of(folder.name) for folder in reserved):
            got = f"images without classes or labels in {got}"
        raise UserError(root, expected, got, _HINT)
    for folder in folders:
        stems = {path.stem for path in files_with(folder, *IMAGE_ENDINGS)}
        labels = [path for path in files_with(folder, *_LABELS) if path.stem in stems]
        if labels:
            kind = _LABELS[labels[0].suffix.lower()]
            got = f"{kind} files next to images ({folder.name}/{labels[0].name}) in no supported format"
            raise UserError(root, expected, got, _HINT)


def _is_reserved(name: str) -> bool:
    return re.sub(r"[-_ ]?\d*$", "", name.lower()) in NOT_CLASSES

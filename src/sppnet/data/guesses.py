"""What speaks against taking folders for classes, and formats that are recognised but not read."""

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
"""Names of folders, in lower case, that are never taken for classes unless ``--format folders`` says so."""

_LABELS = {".xml": "XML", ".txt": "text", ".json": "JSON"}
_LOOKED_AT = 20  # files of a folder that are opened to see what they are
_FORMATS = (
    ("labelme JSON", ".json", (b'"shapes"', b'"imagePath"')),
    ("VGG Image Annotator JSON", ".json", (b'"regions"', b'"shape_attributes"')),
    ("Label Studio JSON", ".json", (b'"from_name"', b'"to_name"')),
    ("Supervisely JSON", ".json", (b'"classTitle"', b'"points"')),
    ("CreateML JSON", ".json", (b'"coordinates"', b'"label"', b'"image')),
    ("CVAT XML", ".xml", (b"<annotations", b"<image ")),
)
_TODO = "If every folder is a class, say so: --format folders (layout='folders')."


def foreign_format(root: Path) -> str | None:
    """A format of labels that is known but not read, found in ``root`` or up to two folders below.

    Examples:
        >>> foreign_format(Path("nowhere")) is None
        True
    """
    for path in _label_files(root):
        content = read_bytes(path).replace(b"\0", b"")
        for name, ending, words in _FORMATS:
            if path.suffix.lower() == ending and all(word in content for word in words):
                return f"{name} ({path.name}), which is not read"
    return None


def _label_files(root: Path) -> Iterator[Path]:
    inner = folders_in(root)
    for folder in (root, *inner, *(deeper for one in inner for deeper in folders_in(one))):
        for ending in (".json", ".xml"):
            yield from files_with(folder, ending)[:_LOOKED_AT]


def check_class_folders(root: Path) -> None:
    """Refuse to guess classes from the names of folders where they may be something else.

    Raises:
        UserError: a folder has a name such as ``images`` or ``train``, or labels lie beside images.
    """
    folders = class_folders(root)
    reserved = [folder for folder in folders if _is_reserved(folder.name)]
    expected = "a folder of images for each class"
    if reserved:
        got = f"the folders {shortened([str(folder.relative_to(root)) for folder in reserved])}"
        if all(split_of(folder.name) for folder in reserved):
            got = f"images without classes or labels in {got}"
        raise UserError(root, expected, got, _TODO)
    for folder in folders:
        stems = {path.stem for path in files_with(folder, *IMAGE_ENDINGS)}
        beside = [path for path in files_with(folder, *_LABELS) if path.stem in stems]
        if beside:
            kind = _LABELS[beside[0].suffix.lower()]
            got = f"{kind} files beside images ({folder.name}/{beside[0].name}) in no format that is read"
            raise UserError(root, expected, got, _TODO)


def _is_reserved(name: str) -> bool:
    return re.sub(r"[-_ ]?\d*$", "", name.lower()) in NOT_CLASSES

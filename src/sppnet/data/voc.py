"""PASCAL VOC: ``JPEGImages``, ``Annotations`` and ``ImageSets/Main``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.splits import WHOLE
from sppnet.data.truth import Annotated, make_truth, size_of_annotated
from sppnet.errors import UserError
from sppnet.progress import track
from sppnet.structures import DetectionItem, DetectionSet, ImageSize

_MANY = 3000  # files that take long enough to want a bar
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def is_voc(root: Path) -> bool:
    """Whether ``root``, or one folder in it or in its ``VOCdevkit``, has VOC's folders."""
    return bool(_homes(root))


def voc_splits(root: Path) -> tuple[str, ...]:
    """The files of ``ImageSets/Main``, but for the lists of single classes such as aeroplane_train."""
    lists = {path.stem: path for path in sorted((voc_home(root) / "ImageSets" / "Main").glob("*.txt"))}
    return tuple(name for name, path in lists.items() if not _lists_one_class(name, path, set(lists)))


def read_voc(root: Path, split: str) -> DetectionSet:
    """One split of a VOC data set; its class names are those of all its annotations, sorted.

    VOC counts pixels from 1 and includes a box's last pixel: its (xmin, ymin, xmax, ymax) is the
    continuous (xmin - 1, ymin - 1, xmax, ymax).

    Args:
        root: the folder, or one around it (VOCdevkit).
        split: one of `voc_splits`, or ``""`` for all annotations where there is none.

    Raises:
        UserError: a missing or broken file, an image without annotation, an object without name or
            box, or a box outside its image; it names the file and the object.
    """
    home = voc_home(root)
    files = sorted((home / "Annotations").glob("*.xml"))
    read = track(files, "annotations", quiet=len(files) < _MANY)
    described = {path.stem: _describe(path) for path in read}
    names = tuple(sorted({found.name for one in described.values() for found in one.objects}))
    images = {
        path.stem: path
        for path in sorted((home / "JPEGImages").iterdir(), reverse=True)
        if path.suffix.lower() in IMAGE_ENDINGS
    }
    keys = list(described) if split == WHOLE else _lines(home / "ImageSets" / "Main" / f"{split}.txt")
    items: list[DetectionItem] = []
    for key in track(keys, "images", quiet=len(keys) < _MANY):
        path = home / "Annotations" / f"{key}.xml"
        if key not in described:
            raise UserError(path, f"the annotation of {key}", "no such file")
        if key not in images:
            raise UserError(path, f"its image, {home / 'JPEGImages' / key}.jpg", "no such file")
        size = size_of_annotated(images[key], path, described[key].stated)
        objects = [
            _annotated(path, number, found, names) for number, found in enumerate(described[key].objects, 1)
        ]
        items.append(DetectionItem(images[key], key, make_truth(objects, names, size)))
    return DetectionSet(root, "voc", split, names, tuple(range(1, len(names) + 1)), tuple(items))


@dataclass(frozen=True)
class _Object:
    name: str
    difficult: bool
    sides: tuple[str | None, ...]


@dataclass(frozen=True)
class _Description:
    stated: ImageSize | None
    objects: tuple[_Object, ...]


def _homes(root: Path) -> list[Path]:
    def fits(folder: Path) -> bool:
        return (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()

    if fits(root):
        return [root]
    around = (root, root / "VOCdevkit")
    return sorted(inner for folder in around if folder.is_dir() for inner in folder.iterdir() if fits(inner))


def voc_home(root: Path) -> Path:
    """The folder of ``JPEGImages``: ``root``, or the only such folder in it or in its ``VOCdevkit``.

    Raises:
        UserError: there is none, or several.
    """
    homes = _homes(root)
    if not homes:
        raise UserError(root, "the folders Annotations and JPEGImages", "neither or only one of them")
    if len(homes) > 1:
        found = ", ".join(home.name for home in homes)
        raise UserError(root, "one VOC data set", f"{len(homes)}: {found}", "Name one of these folders")
    return homes[0]


def _lines(path: Path) -> list[str]:
    return [
        line.strip()
        for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        if line.strip()
    ]


def _lists_one_class(name: str, path: Path, others: set[str]) -> bool:
    """VOC's own lists of a class: ``aeroplane_train``, every line with a second column -1, 0 or 1."""
    _, underscore, end = name.rpartition("_")
    if not underscore or end not in others:
        return False
    lines = _lines(path)
    return bool(lines) and re.fullmatch(r"\S+\s+(-1|0|1)", lines[0]) is not None


def _describe(path: Path) -> _Description:
    try:
        tree = fromstring(path.read_bytes())
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise UserError(path, "well-formed XML without entities", error) from error
    objects: list[_Object] = []
    for number, node in enumerate(tree.findall("object"), 1):
        name = (node.findtext("name") or "").strip()
        if not name:
            raise UserError(f"{path}, object {number}", "a class name", "none")
        difficult = (node.findtext("difficult") or "").strip().lower() in {"1", "true"}
        objects.append(_Object(name, difficult, tuple(node.findtext(f"bndbox/{side}") for side in _SIDES)))
    return _Description(_stated_size(tree), tuple(objects))


def _annotated(path: Path, number: int, found: _Object, names: tuple[str, ...]) -> Annotated:
    where = f"{path}, object {number} ({found.name})"
    shown = ", ".join(f"{side} {text}" for side, text in zip(_SIDES, found.sides, strict=True))
    try:
        xmin, ymin, xmax, ymax = (float(text or "") for text in found.sides)
    except ValueError as error:
        raise UserError(where, "four numbers in its bndbox", shown) from error
    box = (xmin - 1, ymin - 1, xmax, ymax)
    return Annotated(where, shown, box, names.index(found.name), found.difficult)


def _stated_size(tree: Element) -> ImageSize | None:
    try:
        return ImageSize(int(tree.findtext("size/height") or ""), int(tree.findtext("size/width") or ""))
    except ValueError:  # often left out or 0; the image itself is asked anyway
        return None

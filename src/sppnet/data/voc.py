"""Read data sets in VOC layout: an XML file per image, divided by lists, by folders or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.notes import counted, skipped
from sppnet.data.splits import WHOLE
from sppnet.data.truth import Annotated, Sizes, stated_size
from sppnet.data.voc_folders import SplitFolders, voc_layout, voc_layouts, xml_files
from sppnet.errors import UserError
from sppnet.inputs.documents import load_xml
from sppnet.inputs.paths import files_under, name_parts
from sppnet.inputs.text import text_lines
from sppnet.inputs.values import class_name, flag, real
from sppnet.inputs.words import shortened
from sppnet.progress import track
from sppnet.structures import DetectionItem, DetectionSet, ImageSize

_PROGRESS_FROM = 3000  # number of files from which a progress bar is shown
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_FLAG = re.compile(r"\s+[+-]?[01]$")
_ENDINGS = (*IMAGE_ENDINGS, ".xml")


def is_voc(root: Path) -> bool:
    """Return whether ``root``, or a folder in it or in its ``VOCdevkit``, is a VOC data set."""
    return bool(voc_layouts(root))


def voc_splits(root: Path) -> tuple[str, ...]:
    """List the splits: the lists of ``ImageSets/Main`` without those of a class, else split folders."""
    layout = voc_layout(root)
    return tuple(layout.lists) or tuple(name for name in layout.parts if name != WHOLE)


def read_voc(root: Path, split: str) -> DetectionSet:
    """Read a split of a VOC data set; the classes are those of all its annotations, sorted.

    VOC counts pixels from 1 and includes the last pixel of a box: (xmin, ymin, xmax, ymax) is the continuous
    box (xmin - 1, ymin - 1, xmax, ymax). Without a list of images, images without an annotation and
    annotations without an image are left out and counted in ``notes``.

    Args:
        root: the folder of the data set, or a folder around it (VOCdevkit).
        split: one of `voc_splits`, or ``""`` for all annotations if there is none.

    Raises:
        UserError: a file is missing or damaged, a listed image has no annotation, an object has no name or
            box, a box is outside its image, or a stated size does not match the image. The message names the
            file and the object.
    """
    layout = voc_layout(root)
    described = {name: _describe_all(part) for name, part in layout.parts.items()}
    descriptions = [one for table in described.values() for one in table.values()]
    names = tuple(sorted({found.name for one in descriptions for found in one.objects}))
    chosen = WHOLE if split in layout.lists or split == WHOLE else split
    if chosen not in layout.parts or (split == WHOLE and layout.lists):
        raise UserError(root, f"one of the splits {', '.join(voc_splits(root))}", repr(split))
    table, files = described[chosen], files_under(layout.parts[chosen].images)
    images = _Images(files, layout.parts[chosen].images)
    keys, notes = list(table), ()
    if split in layout.lists:
        keys, notes = _listed(layout.lists[split], table, images)
    items: list[DetectionItem] = []
    sizes, unmatched = Sizes(), list[Path]()
    for key in track(keys, "Reading images", quiet=len(keys) < _PROGRESS_FROM):
        one = table[key]
        image = images.find(key, one)
        if image is None and split in layout.lists:
            expected = layout.parts[chosen].images / f"{key}.jpg"
            raise UserError(one.path, f"its image, {expected}", "no such file")
        if image is None:
            unmatched.append(one.path)
            continue
        objects = [_annotated(one.path, number, found, names) for number, found in enumerate(one.objects, 1)]
        items.append(DetectionItem(image, key, sizes.truth(image, one.path, one.stated, objects, names)))
    _check_images(items)
    if split not in layout.lists:
        unlabelled = images.without({item.path for item in items})
        notes += counted(unlabelled, "image", "images", "without an annotation left out")
        notes += counted(unmatched, "annotation", "annotations", "without an image left out")
    notes += sizes.notes() + skipped(files)
    numbers = tuple(range(1, len(names) + 1))
    return DetectionSet(root, "voc", split, names, numbers, tuple(items), notes)


@dataclass(frozen=True)
class _Object:
    name: str
    difficult: bool
    sides: tuple[str | None, ...]


@dataclass(frozen=True)
class _Description:
    path: Path
    filename: str
    stated: ImageSize | None
    objects: tuple[_Object, ...]


def _describe_all(folders: SplitFolders) -> dict[str, _Description]:
    """Read the annotations of a split by key, the path in its folder without extension."""
    files = xml_files(folders.annotations)
    found: dict[str, _Description] = {}
    for path in track(files, "Reading annotations", quiet=len(files) < _PROGRESS_FROM):
        key = path.relative_to(folders.annotations).with_suffix("").as_posix()
        if key in found:
            raise UserError(path, f"one annotation of {key}", f"another one in {found[key].path.name}")
        found[key] = _describe(path)
    return found


def _describe(path: Path) -> _Description:
    tree = load_xml(path)
    if str(tree.tag).lower() != "annotation":
        raise UserError(path, "a root element annotation", f"the root element {str(tree.tag)[:80]}")
    objects: list[_Object] = []
    for number, node in enumerate(tree.findall("object"), 1):
        where = f"{path}, object {number}"
        name = class_name(node.findtext("name"), where)
        difficult = flag(node.findtext("difficult"), f"{where} ({name}), difficult")
        objects.append(_Object(name, difficult, tuple(node.findtext(f"bndbox/{side}") for side in _SIDES)))
    return _Description(path, _text(tree, "filename"), _stated_size(tree), tuple(objects))


def _text(tree: Element, name: str) -> str:
    return (tree.findtext(name) or "").strip()


def _stated_size(tree: Element) -> ImageSize | None:
    return stated_size(_text(tree, "size/height"), _text(tree, "size/width"))


def _annotated(path: Path, number: int, found: _Object, names: tuple[str, ...]) -> Annotated:
    where = f"{path}, object {number} ({found.name})"
    shown = ", ".join(f"{side} {(text or '')[:30]}" for side, text in zip(_SIDES, found.sides, strict=True))
    try:
        xmin, ymin, xmax, ymax = (real(text or "") for text in found.sides)
    except ValueError as error:
        raise UserError(where, "a bndbox of four numbers", shown) from error
    box = (xmin - 1, ymin - 1, xmax, ymax)
    return Annotated(where, shown, box, names.index(found.name), found.difficult)


class _Images:
    """The images of a split, by key and by file name."""

    def __init__(self, files: list[Path], folder: Path) -> None:
        self._all = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS]
        self._by_key: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in self._all:
            key = path.relative_to(folder).with_suffix("").as_posix()
            self._by_key.setdefault(key, []).append(path)
            self._by_stem.setdefault(path.stem, []).append(path)

    def find(self, key: str, described: _Description) -> Path | None:
        """Return the image with the name of an annotation, else that of its ``filename``, else None."""
        parts = name_parts(described.filename)
        stated = parts[-1] if parts else ""
        stem = Path(stated).stem if stated else key
        for found in (self._by_key.get(key), self._by_stem.get(Path(key).name), self._by_stem.get(stem)):
            if found is None:
                continue
            exact = [path for path in found if path.name == stated]
            if len(found) > 1 and len(exact) != 1:
                raise UserError(described.path, "one image of its name", shortened(found))
            return exact[0] if exact else found[0]
        return None

    def without(self, used: set[Path]) -> list[Path]:
        return [path for path in self._all if path not in used]


def _listed(path: Path, table: dict[str, _Description], images: _Images) -> tuple[list[str], tuple[str, ...]]:
    """Return the keys of a list without duplicates, and a note on the duplicates."""
    stems: dict[str, list[str]] = {}
    for key in table:
        stems.setdefault(Path(key).name, []).append(key)
    keys: dict[str, None] = {}
    duplicates: list[str] = []
    for number, line in text_lines(path):
        key = _key(line, table, stems)
        if key is None:
            missing = path.parents[2] / "Annotations" / f"{_spellings(line)[-1][:100]}.xml"
            raise UserError(
                missing, f"the annotation of {line[:200]} ({path.name}, line {number})", "no such file"
            )
        if key in keys:
            duplicates.append(key)
        keys[key] = None
    return list(keys), counted(duplicates, "image", "images", f"listed twice in {path.name} read once")


def _key(line: str, table: dict[str, _Description], stems: dict[str, list[str]]) -> str | None:
    """Return the key of a line, which may have an extension, a flag, quotes or folders."""
    for spelling in _spellings(line):
        parts = name_parts(spelling)
        for start in range(len(parts)):
            key = "/".join(parts[start:])
            if key in table:
                return key
        matching = stems.get(parts[-1], []) if parts else []
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise UserError(matching[0], f"one annotation for {line[:200]}", shortened(matching))
    return None


def _spellings(line: str) -> list[str]:
    plain = [line.strip().strip("\"'").strip(), _FLAG.sub("", line.strip()).strip().strip("\"'").strip()]
    ends = [name[: -len(end)] for name in plain for end in _ENDINGS if name.lower().endswith(end)]
    return list(dict.fromkeys([*plain, *ends]))


def _check_images(items: list[DetectionItem]) -> None:
    keys: dict[Path, str] = {}
    for item in items:
        if item.path in keys:
            got = f"the annotations {keys[item.path]} and {item.key}"
            raise UserError(item.path, "one annotation", got, "Remove one of them.")
        keys[item.path] = item.key

"""COCO: JSON annotations with images beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from sppnet.data.splits import SPLIT_FOLDERS, plain_name
from sppnet.data.truth import Annotated, make_truth, size_of_annotated
from sppnet.errors import UserError
from sppnet.progress import track
from sppnet.structures import DetectionItem, DetectionSet, ImageSize

_MANY = 3000  # images that take long enough to want a bar
_CATEGORIES = re.compile(r'"categories"\s*:\s*(?=\[)')

Record: TypeAlias = Mapping[str, Any]


def is_coco(root: Path) -> bool:
    """Whether ``root`` has COCO annotations where `coco_splits` looks for them."""
    return bool(_annotation_files(root))


def coco_splits(root: Path) -> tuple[str, ...]:
    """The splits, each named after its annotation file or folder.

    Looked for, in this order: ``annotations/instances_SPLIT.json``, ``annotations/SPLIT.json``,
    ``SPLIT/_annotations.coco.json``, and ``SPLIT.json`` in ``root`` itself.
    """
    return tuple(_annotation_files(root))


def read_coco(root: Path, split: str) -> DetectionSet:
    """One split of a COCO data set; crowds and images without objects are kept.

    Class names are the categories of all its splits, by ascending id; categories of one name are one
    class, with the last of their ids.

    Args:
        root: the folder that holds ``annotations``.
        split: one of `coco_splits`.

    Raises:
        UserError: a missing or broken file, an annotation of an unknown image or category, or a box
            outside its image; it names the file and the annotation.
    """
    files = _annotation_files(root)
    if not files:
        raise UserError(root, "annotations/*.json with images, annotations and categories", "none")
    if split not in files:
        raise UserError(root, f"one of the splits {', '.join(files)}", repr(split))
    file = files[split]
    content = _load(file)
    ids = _category_ids(list(files.values()))
    names = tuple(ids)
    labels = _labels(file, content, ids)
    records = {_field(file, record, "id", "image"): record for record in _records(file, content, "images")}
    objects: dict[Any, list[Annotated]] = {key: [] for key in records}
    for number, annotation in enumerate(_records(file, content, "annotations")):
        where = f"{file}, annotation {annotation.get('id', f'number {number}')}"
        image_id = annotation.get("image_id")
        if not isinstance(image_id, int | str) or image_id not in objects:
            raise UserError(where, "the image_id of one of its images", image_id)
        objects[image_id].append(_annotated(where, annotation, labels))
    folders = _image_folders(root, file, split)
    items: list[DetectionItem] = []
    for key, record in track(records.items(), "images", len(records), quiet=len(records) < _MANY):
        image = _find_image(file, str(_field(file, record, "file_name", f"image {key}")), folders)
        size = size_of_annotated(image, file, _stated_size(record))
        items.append(DetectionItem(image, str(key), make_truth(objects[key], names, size), key))
    return DetectionSet(root, "coco", split, names, tuple(ids.values()), tuple(items))


def _annotation_files(root: Path) -> dict[str, Path]:
    """Annotation file by split. Files elsewhere than COCO puts them are opened to see what they hold."""
    folder = root / "annotations"
    instances = {
        path.stem.removeprefix("instances_"): path for path in sorted(folder.glob("instances_*.json"))
    }
    if instances:
        return instances
    exported = {path.parent.name: path for path in sorted(root.glob("*/_annotations.coco.json"))}
    if exported:
        return exported
    return {p.stem: p for place in (folder, root) for p in sorted(place.glob("*.json")) if _holds_boxes(p)}


def _holds_boxes(path: Path) -> bool:
    text = path.read_bytes()
    return all(key in text for key in (b'"images"', b'"annotations"', b'"categories"', b'"bbox"'))


def _load(file: Path) -> Record:
    try:
        content: object = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(file, "well-formed JSON", error) from error
    if not isinstance(content, dict):
        raise UserError(file, "a JSON object with images, annotations and categories", type(content).__name__)
    return cast(Record, content)


def _records(file: Path, content: Record, name: str) -> Sequence[Record]:
    records: object = content.get(name)
    if not isinstance(records, list) or not all(
        isinstance(record, dict) for record in cast(list[Any], records)
    ):
        raise UserError(file, f'a list of objects under "{name}"', type(records).__name__)
    return cast(Sequence[Record], records)


def _field(file: Path, record: Record, name: str, of: str) -> Any:
    if name not in record:
        raise UserError(file, f'"{name}" in every {of.split()[0]}', f"{of} without it")
    return record[name]


def _category_ids(files: Sequence[Path]) -> dict[str, int]:
    """The id of each class name over all splits, ascending: ids alone decide, not the split read."""
    names: dict[int, str] = {}
    for file in files:
        for category in _categories(file):
            number, name = category["id"], str(category["name"])
            if names.setdefault(number, name) != name:
                raise UserError(
                    file, f"category {number} to be {names[number]!r}, as in another split", repr(name)
                )
    last: dict[str, int] = {names[number]: number for number in sorted(names)}
    return dict(sorted(last.items(), key=lambda entry: entry[1]))


def _categories(file: Path) -> Sequence[Record]:
    """The categories alone, which takes a fraction of the time that the whole of a large file takes."""
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    for match in _CATEGORIES.finditer(text):
        try:
            found: object = json.JSONDecoder().raw_decode(text, match.end())[0]
        except ValueError as error:
            raise UserError(file, "well-formed JSON", error) from error
        rows = cast(list[Any], found)
        if rows and all(
            isinstance(row, dict) and isinstance(row.get("id"), int) and "name" in row for row in rows
        ):
            return cast(Sequence[Record], rows)
    raise UserError(file, 'a list "categories" of objects with an integer id and a name', "none")


def _labels(file: Path, content: Record, ids: Mapping[str, int]) -> dict[int, int]:
    """Class number by category id, those of merged categories included."""
    numbers = {name: number for number, name in enumerate(ids)}
    categories = _records(file, content, "categories")
    return {_field(file, c, "id", "category"): numbers[str(c.get("name"))] for c in categories}


def _annotated(where: str, annotation: Record, labels: Mapping[int, int]) -> Annotated:
    category = annotation.get("category_id")
    if not isinstance(category, int) or category not in labels:
        raise UserError(where, "the category_id of one of its categories", category)
    box: object = annotation.get("bbox")
    try:
        x, y, width, height = (float(value) for value in cast(list[Any], box))
    except (TypeError, ValueError) as error:
        raise UserError(where, "a bbox [x, y, width, height]", box) from error
    crowd = bool(annotation.get("iscrowd", 0))
    return Annotated(where, f"bbox {box}", (x, y, x + width, y + height), labels[category], crowd=crowd)


def _stated_size(image: Record) -> ImageSize | None:
    height, width = image.get("height"), image.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return ImageSize(height, width)
    return None


def _image_folders(root: Path, file: Path, split: str) -> list[Path]:
    """Where images may lie, top first."""
    alike = [name for name in SPLIT_FOLDERS if plain_name(name) == plain_name(split)]
    names = [split, *alike]
    folders = [root / name for name in names] + [root / "images" / name for name in names]
    folders += [root / "images", root, file.parent]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _find_image(file: Path, name: str, folders: list[Path]) -> Path:
    """The image in the first folder that has it; that folder is then asked first for the next one."""
    for position, folder in enumerate(folders):
        path = folder / name
        if path.is_file():
            folders.insert(0, folders.pop(position))
            return path
    looked = ", ".join(str(folder) for folder in folders)
    raise UserError(file, f"the image {name} in one of {looked}", "no such file")

"""YOLO: ``data.yaml``, or folders of images and labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.notes import counted, skipped
from sppnet.data.splits import WHOLE
from sppnet.data.truth import NO_SIZE, Annotated, make_truth, merged_names, shape_of_sound
from sppnet.data.yolo_files import (
    MOST_CLASSES,
    Images,
    YoloLayout,
    folder_sources,
    images_of,
    yaml_of,
    yolo_layout,
)
from sppnet.errors import UserError
from sppnet.inputs.paths import files_with, is_file
from sppnet.inputs.text import shown, text_lines
from sppnet.inputs.values import real
from sppnet.inputs.words import plural
from sppnet.progress import track
from sppnet.structures import DetectionItem, DetectionSet, ImageSize

_MANY = 3000  # images that take long enough to want a bar
_NOT_LABELS = {"classes", "labels", "notes", "readme", "train", "val", "valid", "test", "predefined_classes"}


def is_yolo(root: Path) -> bool:
    """Whether ``root`` is a YOLO yaml, holds one, or holds images with YOLO's labels."""
    if yaml_of(root) is not None:
        return True
    return bool(folder_sources(root))


def yolo_splits(root: Path) -> tuple[str, ...]:
    """The splits: the yaml's train, val and test, else the folders of these names."""
    return tuple(split for split in yolo_layout(root).sources if split != WHOLE)


def read_yolo(root: Path, split: str) -> DetectionSet:
    """One split of a YOLO data set.

    A label file lies where its image lies, with ``labels`` for the last ``images`` of the path, or
    beside the image. An image without one has no objects. A polygon counts as the box around it.
    Without names the classes are the numbers 0, 1, ... up to the highest one used in any split. Images
    without labels, and labels without image, are counted in ``notes``.

    Args:
        root: the folder, or its yaml.
        split: one of `yolo_splits`, or ``""`` where there is none.

    Raises:
        UserError: a missing or broken file, a class number without a name, a box outside its image, two
            images for one label file, or no label file for any image; it names the file and the line.
    """
    layout = yolo_layout(root)
    if split not in layout.sources:
        raise UserError(root, f"one of the splits {', '.join(layout.sources)}", repr(split))
    images = images_of(layout, split)
    labels = _label_files(images)
    lines = {file: _lines(file) for file in labels.values()}
    ids = layout.names if layout.names is not None else _numbered(layout)
    used = {_class_id(where, fields) for rows in lines.values() for where, fields in rows}
    table, notes = merged_names(list(ids.items()), used)
    names = tuple(table)
    places = {name: number for number, name in enumerate(names)}
    numbers = {category: places[name] for category, name in ids.items()}
    items: list[DetectionItem] = []
    for image, key in track(images.keys.items(), "images", len(images.keys), quiet=len(images.keys) < _MANY):
        shape = shape_of_sound(image)
        size = NO_SIZE if shape is None else shape[0]
        rows = lines[labels[image]] if image in labels and shape is not None else []
        objects = [_annotated(where, fields, numbers, size, layout.poses) for where, fields in rows]
        items.append(DetectionItem(image, key, make_truth(objects, names, size)))
    if items and not labels:
        expected = f"a label file for at least one of {plural(len(items), 'image')}"
        raise UserError(root, expected, "none", f"Looked for {_label_places(items[0].path)[0]} and the like.")
    notes += _notes(images, labels)
    return DetectionSet(root, "yolo", split, names, tuple(table.values()), tuple(items), notes)


def _notes(images: Images, labels: Mapping[Path, Path]) -> tuple[str, ...]:
    bare = [image for image in images.keys if image not in labels]
    used, lonely = set(labels.values()), list[Path]()
    for folder in sorted({file.parent for file in used}):
        files = files_with(folder, ".txt")
        lonely += [file for file in files if file not in used and file.stem.lower() not in _NOT_LABELS]
    return (
        *counted(images.twice, "image", "images", "named twice read once"),
        *counted(bare, "image", "images", "without a label file taken as images without objects"),
        *counted(_without_image(lonely, images), "label file", "label files", "without an image left out"),
        *skipped(images.files),
    )


def _without_image(files: Sequence[Path], images: Images) -> list[Path]:
    """Of label files those whose image is in no split: folders of labels may serve several."""
    folders = {image.parent for image in images.keys}
    stems = {path.stem for folder in folders for path in files_with(folder, *IMAGE_ENDINGS)}
    return [file for file in files if file.stem not in stems]


def _numbered(layout: YoloLayout) -> dict[int, str]:
    """Numbers as names, up to the highest one of any split."""
    highest = -1
    for split in layout.sources:
        for file in _label_files(images_of(layout, split)).values():
            for where, fields in _lines(file):
                number = _class_id(where, fields)
                if number >= MOST_CLASSES:
                    expected = f"a class number below {MOST_CLASSES:,}, as no file names the classes"
                    raise UserError(where, expected, number)
                highest = max(highest, number)
    return {number: str(number) for number in range(highest + 1)}


def _label_places(image: Path) -> list[Path]:
    """Where the label file of an image may lie, best first."""
    parts = list(image.with_suffix(".txt").parts)
    places: list[Path] = []
    for position in range(len(parts) - 2, -1, -1):
        if parts[position].lower() == "images":
            for name in dict.fromkeys(("labels", "Labels" if parts[position][0] == "I" else "LABELS")):
                places.append(Path(*parts[:position], name, *parts[position + 1 :]))
            break
    return [*places, Path(*parts)]


def _label_files(images: Images) -> dict[Path, Path]:
    """By image its label file; images without one are left out."""
    found: dict[Path, Path] = {}
    owners: dict[Path, Path] = {}
    for image in images.keys:
        places = _label_places(image)
        spellings = [place.with_suffix(ending) for place in places for ending in (".txt", ".TXT")]
        file = next(filter(is_file, spellings), None)
        if file is None:
            continue
        if file in owners:
            got = f"{owners[file].name} and {image.name}"
            raise UserError(file, "one image of its name", got, "Rename one of them and its label file.")
        owners[file] = image
        found[image] = file
    return found


def _lines(file: Path) -> list[tuple[str, list[str]]]:
    return [(f"{file}, line {number}", line.split()) for number, line in text_lines(file)]


def _class_id(where: str, fields: Sequence[str]) -> int:
    # Some tools write class numbers as 3.000000.
    if not re.fullmatch(r"[0-9]+(\.0*)?", fields[0]):
        raise UserError(where, "a class number first", shown(fields[0]))
    digits = fields[0].partition(".")[0].lstrip("0") or "0"
    if len(digits) > 18:
        raise UserError(where, "a class number", f"a number of {len(digits)} digits")
    return int(digits)


def _annotated(
    where: str, fields: Sequence[str], numbers: Mapping[int, int], size: ImageSize, pose: bool
) -> Annotated:
    category = _class_id(where, fields)
    if category not in numbers:
        raise UserError(where, f"one of the {len(numbers)} class numbers up to {max(numbers)}", category)
    text = " ".join(field[:30] for field in fields[1:9]) + (" ..." if len(fields) > 9 else "")
    polygon = not pose and len(fields) >= 7 and len(fields) % 2 == 1
    try:
        values = [real(field) for field in fields[1:]]
    except ValueError as error:
        raise UserError(where, "finite numbers after the class number", text) from error
    if polygon:
        across, down = values[0::2], values[1::2]
        x0, y0, x1, y1 = min(across), min(down), max(across), max(down)
    elif len(values) == 4 or (pose and len(values) > 4):
        x, y, width, height = values[:4]
        x0, y0, x1, y1 = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    else:
        expected = "class x y width height, or class and at least three corners x y"
        raise UserError(where, expected, f"{len(fields)} numbers")
    box = (x0 * size.width, y0 * size.height, x1 * size.width, y1 * size.height)
    return Annotated(where, text, box, numbers[category])

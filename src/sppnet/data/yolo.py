"""Read data sets in YOLO layout: ``data.yaml``, or folders of images and labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.notes import counted, skipped
from sppnet.data.splits import WHOLE
from sppnet.data.truth import NO_SIZE, Annotated, make_truth, merged_names, readable_shape
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

_PROGRESS_FROM = 3000  # number of images from which a progress bar is shown
_NOT_LABELS = {"classes", "labels", "notes", "readme", "train", "val", "valid", "test", "predefined_classes"}


def is_yolo(root: Path) -> bool:
    """Return whether ``root`` is a YOLO yaml, has one, or has images with YOLO labels."""
    if yaml_of(root) is not None:
        return True
    return bool(folder_sources(root))


def yolo_splits(root: Path) -> tuple[str, ...]:
    """List the splits: train, val and test of the yaml, else the folders of these names."""
    return tuple(split for split in yolo_layout(root).sources if split != WHOLE)


def read_yolo(root: Path, split: str) -> DetectionSet:
    """Read a split of a YOLO data set.

    The path of a label file is that of its image with ``labels`` instead of the last ``images``, or it is
    next to the image. An image without a label file has no objects. A polygon is read as its bounding box.
    Without names, the classes are the numbers from 0 to the highest one in any split. Images without labels
    and labels without an image are counted in ``notes``.

    Args:
        root: the folder of the data set, or its yaml.
        split: one of `yolo_splits`, or ``""`` if there is none.

    Raises:
        UserError: a file is missing or damaged, a class number has no name, a box is outside its image, two
            images share a label file, or no image has one. The message names the file and the line.
    """
    layout = yolo_layout(root)
    if split not in layout.sources:
        raise UserError(root, f"one of the splits {', '.join(layout.sources)}", repr(split))
    images = images_of(layout, split)
    labels = _label_files(images)
    lines = {file: _lines(file) for file in labels.values()}
    ids = layout.names if layout.names is not None else _numbered(layout)
    used = {_class_id(where, fields) for entries in lines.values() for where, fields in entries}
    table, notes = merged_names(list(ids.items()), used)
    names = tuple(table)
    positions = {name: number for number, name in enumerate(names)}
    numbers = {category: positions[name] for category, name in ids.items()}
    items: list[DetectionItem] = []
    for image, key in track(
        images.keys.items(), "Reading images", len(images.keys), quiet=len(images.keys) < _PROGRESS_FROM
    ):
        shape = readable_shape(image)
        size = NO_SIZE if shape is None else shape[0]
        entries = lines[labels[image]] if image in labels and shape is not None else []
        objects = [_annotated(where, fields, numbers, size, layout.poses) for where, fields in entries]
        items.append(DetectionItem(image, key, make_truth(objects, names, size)))
    if items and not labels:
        expected = f"a label file for at least one of {plural(len(items), 'image')}"
        raise UserError(
            root, expected, "none", f"A label file would be {_label_paths(items[0].path)[0]}, for example."
        )
    notes += _notes(images, labels)
    return DetectionSet(root, "yolo", split, names, tuple(table.values()), tuple(items), notes)


def _notes(images: Images, labels: Mapping[Path, Path]) -> tuple[str, ...]:
    unlabelled = [image for image in images.keys if image not in labels]
    used, unmatched = set(labels.values()), list[Path]()
    for folder in sorted({file.parent for file in used}):
        files = files_with(folder, ".txt")
        unmatched += [file for file in files if file not in used and file.stem.lower() not in _NOT_LABELS]
    return (
        *counted(images.duplicates, "image", "images", "listed twice read once"),
        *counted(unlabelled, "image", "images", "without a label file read as images without objects"),
        *counted(_without_image(unmatched, images), "label file", "label files", "without an image left out"),
        *skipped(images.files),
    )


def _without_image(files: Sequence[Path], images: Images) -> list[Path]:
    """Return the label files without an image next to the images of the split."""
    folders = {image.parent for image in images.keys}
    stems = {path.stem for folder in folders for path in files_with(folder, *IMAGE_ENDINGS)}
    return [file for file in files if file.stem not in stems]


def _numbered(layout: YoloLayout) -> dict[int, str]:
    """Return the class numbers up to the highest one of any split, with numbers as names."""
    highest = -1
    for split in layout.sources:
        for file in _label_files(images_of(layout, split)).values():
            for where, fields in _lines(file):
                number = _class_id(where, fields)
                if number >= MOST_CLASSES:
                    expected = f"a class number below {MOST_CLASSES:,}, because no file has class names"
                    raise UserError(where, expected, number)
                highest = max(highest, number)
    return {number: str(number) for number in range(highest + 1)}


def _label_paths(image: Path) -> list[Path]:
    """List the possible paths of the label file of an image, in order of preference."""
    parts = list(image.with_suffix(".txt").parts)
    paths: list[Path] = []
    for position in range(len(parts) - 2, -1, -1):
        if parts[position].lower() == "images":
            for name in dict.fromkeys(("labels", "Labels" if parts[position][0] == "I" else "LABELS")):
                paths.append(Path(*parts[:position], name, *parts[position + 1 :]))
            break
    return [*paths, Path(*parts)]


def _label_files(images: Images) -> dict[Path, Path]:
    """Return the label file of each image that has one."""
    found: dict[Path, Path] = {}
    owners: dict[Path, Path] = {}
    for image in images.keys:
        spellings = [path.with_suffix(ending) for path in _label_paths(image) for ending in (".txt", ".TXT")]
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
        raise UserError(where, "a class number in the first column", shown(fields[0]))
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

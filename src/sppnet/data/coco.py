"""Read data sets with COCO annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from sppnet.data.coco_files import (
    Record,
    annotation_files,
    joined_categories,
    load_annotations,
    read_categories,
    records,
)
from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.notes import counted, skipped
from sppnet.data.splits import plain_name, split_of
from sppnet.data.truth import Annotated, Sizes, merged_names, stated_size
from sppnet.errors import UserError
from sppnet.inputs.paths import FileFinder, files_under, folders_in
from sppnet.inputs.text import shown
from sppnet.inputs.values import flag, identifier, real, same_key
from sppnet.inputs.words import shortened
from sppnet.progress import track
from sppnet.structures import DetectionItem, DetectionSet

_PROGRESS_FROM = 3000  # number of images from which a progress bar is shown


def is_coco(root: Path) -> bool:
    """Return whether a folder has COCO annotations, at the paths that `coco_splits` lists."""
    return bool(annotation_files(root))


def coco_splits(root: Path) -> tuple[str, ...]:
    """List the splits, each named after its annotation file or folder.

    These paths are searched, in this order: ``annotations/instances_SPLIT.json``,
    ``SPLIT/_annotations.coco.json``, ``annotations/SPLIT.json`` and ``SPLIT.json`` in ``root`` itself, and
    one JSON file in each of the folders train, val and test.
    """
    return tuple(annotation_files(root))


def read_coco(root: Path, split: str) -> DetectionSet:
    """Read a split of a COCO data set, with crowds and images without objects.

    The classes are the categories of all splits, by ascending id. Categories of the same name are one class,
    with the last of their ids that has objects. Ids may be texts; ``"3"`` and 3 are the same id.

    Args:
        root: the folder of the data set.
        split: one of `coco_splits`.

    Raises:
        UserError: a file is missing or damaged, an id is duplicate, an annotation has an unknown image or
            category or a box outside its image, or several names match an image. The message names the file
            and the annotation.
    """
    files = annotation_files(root)
    if not files:
        raise UserError(root, "annotations/*.json with images, annotations and categories", "none")
    if split not in files:
        raise UserError(root, f"one of the splits {', '.join(files)}", repr(split))
    file = files[split]
    content = load_annotations(file)
    declared = joined_categories({one: read_categories(one) for one in files.values()})
    images = _images(file, content)
    annotations = _annotations(file, content, images)
    used = {same_key(one["category_id"]) for _, one in annotations if _is_id(one.get("category_id"))}
    ids, notes = merged_names(declared, {number for number, _ in declared if same_key(number) in used})
    names = tuple(ids)
    numbers = {name: number for number, name in enumerate(names)}
    labels = {same_key(number): numbers[name] for number, name in declared}
    objects: dict[int | str, list[Annotated]] = {key: [] for key in images}
    for where, annotation in annotations:
        objects[same_key(annotation["image_id"])].append(_annotated(where, annotation, labels))
    paths = _find_images(root, file, split, images)
    items: list[DetectionItem] = []
    sizes = Sizes()
    for key, (image_id, record) in track(
        images.items(), "Reading images", len(images), quiet=len(images) < _PROGRESS_FROM
    ):
        stated = stated_size(record.get("height"), record.get("width"))
        truth = sizes.truth(paths[key], file, stated, objects[key], names)
        items.append(DetectionItem(paths[key], str(image_id), truth, image_id))
    notes += sizes.notes() + _unlisted(root, split, [item.path for item in items])
    return DetectionSet(root, "coco", split, names, tuple(ids.values()), tuple(items), notes)


def _is_id(value: object) -> bool:
    return isinstance(value, int | str | float) and not isinstance(value, bool)


def _images(file: Path, content: Record) -> dict[int | str, tuple[int | str, Record]]:
    """Return the id, as written, and the record of each image, by key."""
    found: dict[int | str, tuple[int | str, Record]] = {}
    names: dict[str, object] = {}
    for number, record in enumerate(records(file, content, "images")):
        where = f"{file}, image {shown(record.get('file_name', f'number {number}'))}"
        if "id" not in record:
            raise UserError(file, '"id" in every image', f"image number {number} without an id")
        image_id = identifier(record["id"], where, "a whole number or a text as id")
        name: object = record.get("file_name")
        if not isinstance(name, str) or not name.strip():
            got = f"image {shown(image_id)} without a file_name"
            raise UserError(file, '"file_name" in every image', got)
        if same_key(image_id) in found:
            other = found[same_key(image_id)][1]["file_name"]
            got = f"{shown(image_id)} for {shown(other)} and for {shown(name)}"
            raise UserError(file, "each image id once", got, "Give every image its own id.")
        if name in names:
            got = f"{shown(name)} for the ids {shown(names[name])} and {shown(image_id)}"
            raise UserError(file, "each file_name once", got, "Merge the two entries.")
        names[name] = image_id
        found[same_key(image_id)] = (image_id, record)
    return found


def _annotations(
    file: Path, content: Record, images: Mapping[int | str, tuple[int | str, Record]]
) -> list[tuple[str, Record]]:
    """Return the annotations, each with its location for messages; ids and images are checked."""
    found: list[tuple[str, Record]] = []
    seen: dict[int | str, str] = {}
    for number, annotation in enumerate(records(file, content, "annotations")):
        where = f"{file}, annotation {shown(annotation.get('id', f'number {number}'))}"
        image_id: object = annotation.get("image_id")
        expected = "the image_id of one of its images"
        key = same_key(identifier(image_id, where, expected))
        if key not in images:
            raise UserError(where, expected, shown(image_id))
        found.append((where, cast(Record, dict(annotation) | {"image_id": key})))
        if "id" not in annotation:
            continue
        own = same_key(identifier(annotation["id"], where, "a whole number or a text as id"))
        image = str(images[key][1]["file_name"])
        if own in seen:
            got = f"the same id for objects of {shown(seen[own])} and {shown(image)}"
            raise UserError(where, "each annotation id once", got, "Renumber the annotations.")
        seen[own] = image
    return found


def _annotated(where: str, annotation: Record, labels: Mapping[int | str, int]) -> Annotated:
    category: object = annotation.get("category_id")
    expected = "the category_id of one of its categories"
    key = same_key(identifier(category, where, expected))
    if key not in labels:
        raise UserError(where, expected, shown(category))
    box: object = annotation.get("bbox")
    try:
        x, y, width, height = (real(value) for value in cast(list[Any], box))
    except (TypeError, ValueError) as error:
        raise UserError(where, "a bbox [x, y, width, height]", shown(box)) from error
    crowd = flag(annotation.get("iscrowd"), f"{where}, iscrowd")
    return Annotated(where, f"bbox {shown(box)}", (x, y, x + width, y + height), labels[key], crowd=crowd)


def _image_folders(root: Path, file: Path, split: str) -> list[Path]:
    """List the folders to search for images, in order: those of the split, then those of all images."""
    inner = [folder for folder in folders_in(root) if folder.name.lower() == "images"]
    plain = plain_name(split)
    own = [
        folder
        for parent in (root, *inner)
        for folder in sorted(folders_in(parent), key=lambda one: one.name != split)
        if folder.name == split or plain_name(folder.name) == plain
    ]
    return list(dict.fromkeys([*own, *inner, root, file.parent]))


def _find_images(
    root: Path, file: Path, split: str, images: Mapping[int | str, tuple[int | str, Record]]
) -> dict[int | str, Path]:
    """Find the image of every record; an error lists all missing images."""
    folders = _image_folders(root, file, split)
    finder = FileFinder(folders, root, split_of)
    found: dict[int | str, Path] = {}
    missing: list[str] = []
    owners: dict[Path, str] = {}
    for key, (_, record) in images.items():
        name = str(record["file_name"])
        path = finder.find(name)
        if path is None:
            missing.append(name)
            continue
        if path in owners:
            got = f"entries for {shown(owners[path])} and {shown(name)}"
            raise UserError(path, "one entry for the image", got, "Remove one of the entries.")
        owners[path] = name
        found[key] = path
    if missing:
        searched = ", ".join(str(folder) for folder in folders)
        what = "the image" if len(missing) == 1 else f"the {len(missing)} images"
        raise UserError(file, f"{what} {shortened(missing)} in one of {searched}", "no such file")
    return found


def _unlisted(root: Path, split: str, images: Sequence[Path]) -> tuple[str, ...]:
    """Return notes on images that are not in the annotation file and on unsupported file types."""
    folders = {path.parent for path in images if _is_own(path, root, split)}
    files = sorted({path for folder in folders for path in files_under(folder)})
    listed = set(images)
    bare = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS and path not in listed]
    return counted(bare, "image", "images", "not in the annotation file left out") + skipped(files)


def _is_own(path: Path, root: Path, split: str) -> bool:
    parts = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    return any(part == split or split_of(part) == plain_name(split) for part in parts)

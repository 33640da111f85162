"""YOLO: ``data.yaml``, or ``images`` and ``labels`` side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, cast

import yaml

from sppnet.data.images import image_size, images_under
from sppnet.data.splits import SPLIT_FOLDERS, WHOLE, plain_name
from sppnet.data.truth import Annotated, make_truth
from sppnet.errors import UserError
from sppnet.progress import track
from sppnet.structures import DetectionItem, DetectionSet, ImageSize

_MANY = 3000  # images that take long enough to want a bar
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Layout:
    """What the yaml says, or the folders show.

    Attributes:
        folders: what relative paths refer to, top first.
        names: class names by number; None where nobody wrote them down.
        sources: by split, the folders or lists of images as written.
        poses: whether a label is a box followed by key points.
    """

    folders: tuple[Path, ...]
    names: dict[int, str] | None
    sources: dict[str, list[str]]
    poses: bool


def is_yolo(root: Path) -> bool:
    """Whether ``root`` is a YOLO yaml, holds one, or holds ``images`` and ``labels``."""
    if _yaml_of(root) is not None:
        return True
    return bool(_folder_sources(root))


def yolo_splits(root: Path) -> tuple[str, ...]:
    """The splits: the yaml's train, val and test, else the folders of these names."""
    return tuple(split for split in _layout(root).sources if split != WHOLE)


def read_yolo(root: Path, split: str) -> DetectionSet:
    """One split of a YOLO data set.

    A label file lies where its image lies, with ``labels`` for the last ``images`` of the path. A
    image without one has no objects. A polygon counts as the box around it. Without a yaml or
    ``classes.txt`` the class names are the numbers 0, 1, ... up to the highest one used in any split.

    Args:
        root: the folder, or its yaml.
        split: one of `yolo_splits`, or ``""`` where there is none.

    Raises:
        UserError: a missing or broken file, a class number without a name, a box outside its image, or
            no label file for any image; it names the file and the line.
    """
    layout = _layout(root)
    if split not in layout.sources:
        raise UserError(root, f"one of the splits {', '.join(layout.sources)}", repr(split))
    ids = layout.names if layout.names is not None else _numbered(root, layout)
    names, numbers = tuple(ids.values()), {category: number for number, category in enumerate(ids)}
    images = _images(root, layout, split)
    items: list[DetectionItem] = []
    labelled = False
    for image, key in track(images.items(), "images", len(images), quiet=len(images) < _MANY):
        size = image_size(image)
        file = _label_file(image)
        labelled = labelled or file.is_file()
        objects = [_annotated(where, line, numbers, size, layout.poses) for where, line in _lines(file)]
        items.append(DetectionItem(image, key, make_truth(objects, names, size)))
    if items and not labelled:
        wanted = f"a label file for at least one of {len(items)} images"
        raise UserError(root, wanted, "none", f"Looked for {_label_file(items[0].path)} and the like")
    return DetectionSet(root, "yolo", split, names, tuple(ids), tuple(items))


def _yaml_of(root: Path) -> Path | None:
    """The yaml that describes the data set: ``root`` itself, or the only one in it that names classes."""
    if root.is_file():
        return root if root.suffix.lower() in {".yaml", ".yml"} else None
    files = [path for ending in ("*.yaml", "*.yml") for path in sorted(root.glob(ending))]
    named = [path for path in files if path.stem in {"data", "dataset"}]
    fitting = named or [path for path in files if b"names" in path.read_bytes()]
    if len(fitting) > 1:
        found = ", ".join(path.name for path in fitting)
        raise UserError(root, "one yaml that names classes", found, "Give the path of the one that is meant")
    return fitting[0] if fitting else None


def _load(file: Path) -> Mapping[str, Any]:
    try:
        content: object = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(file, "well-formed YAML", error) from error
    return cast(dict[str, Any], content) if isinstance(content, dict) else {}


def _layout(root: Path) -> _Layout:
    file = _yaml_of(root)
    if file is None:
        sources = _folder_sources(root)
        if not sources:
            raise UserError(root, "a data.yaml, or the folders images and labels", "neither")
        return _Layout((root,), _listed_names(root), sources, False)
    content = _load(file)
    sources: dict[str, list[str]] = {}
    for split in _SPLITS:
        entry: object = content.get(split)
        if isinstance(entry, str | list) and entry:
            sources[split] = [
                str(one) for one in (cast(list[Any], entry) if isinstance(entry, list) else [entry])
            ]
    sources = sources or _folder_sources(file.parent)
    if not sources:
        raise UserError(file, "a train, val or test with the place of its images", ", ".join(content))
    folders = dict.fromkeys((file.parent / str(content.get("path") or "."), file.parent))
    return _Layout(tuple(folders), _yaml_names(file, content), sources, "kpt_shape" in content)


def _yaml_names(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    given: object = content.get("names")
    rows = cast(list[Any], given) if isinstance(given, list) else None
    table = dict(enumerate(rows)) if rows is not None else given
    if not isinstance(table, dict) or not table:
        raise UserError(file, "the class names under names, as a list or by number", given)
    pairs = cast(dict[Any, Any], table)
    if not all(isinstance(number, int) for number in pairs):
        raise UserError(file, "whole numbers as the keys of names", ", ".join(map(str, pairs)))
    return {number: str(pairs[number]) for number in sorted(pairs)}


def _resolve(root: Path, layout: _Layout, entry: str) -> Path:
    """Where images lie: as written, else the longest end of the entry that exists in the data set.

    Exported files often name a folder of the machine that wrote them, or one level too many. The end
    must keep the name of the split, lest another split be taken for it.
    """
    tried = [folder / entry for folder in layout.folders]
    parts = [part for part in PureWindowsPath(entry).parts if part.strip("./\\")]
    last = max((i for i, part in enumerate(parts) if plain_name(part) in _SPLITS), default=len(parts) - 1)
    tried += [folder.joinpath(*parts[start:]) for folder in layout.folders for start in range(last + 1)]
    for path in tried:
        if path.exists():
            return path
    raise UserError(root, f"a folder or list of images {entry}", "none", f"Looked for {tried[0]}")


def _folder_sources(root: Path) -> dict[str, list[str]]:
    """Without a yaml: images/SPLIT with labels/SPLIT, SPLIT/images with SPLIT/labels, or images, labels."""
    for pattern in ("images/{}", "{}/images"):
        labels = pattern.replace("images", "labels")
        sources = {
            split: [pattern.format(split)]
            for split in SPLIT_FOLDERS
            if (root / pattern.format(split)).is_dir() and (root / labels.format(split)).is_dir()
        }
        if sources:
            return sources
    return {WHOLE: ["images"]} if (root / "images").is_dir() and (root / "labels").is_dir() else {}


def _listed_names(root: Path) -> dict[int, str] | None:
    for file in (root / "classes.txt", root / "labels" / "classes.txt"):
        if file.is_file():
            lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return dict(enumerate(line.strip() for line in lines if line.strip()))
    return None


def _numbered(root: Path, layout: _Layout) -> dict[int, str]:
    images = [image for split in layout.sources for image in _images(root, layout, split)]
    used = [_class_id(where, line) for image in images for where, line in _lines(_label_file(image))]
    return {number: str(number) for number in range(max(used, default=-1) + 1)}


def _images(root: Path, layout: _Layout, split: str) -> dict[Path, str]:
    """Images with their keys: the stem of the file, or its path where two files share a stem."""
    found: dict[Path, Path] = {}
    for source in (_resolve(root, layout, entry) for entry in layout.sources[split]):
        if source.is_dir():
            found.update({path: path.relative_to(source) for path in images_under(source)})
        else:
            lines = source.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            listed = [Path(line.strip()) for line in lines if line.strip()]
            found.update({source.parent / path: path for path in listed})
    stems = Counter(path.stem for path in found)
    return {
        path: path.stem if stems[path.stem] == 1 else inside.with_suffix("").as_posix()
        for path, inside in found.items()
    }


def _label_file(image: Path) -> Path:
    parts = list(image.with_suffix(".txt").parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts)


def _lines(file: Path) -> list[tuple[str, list[str]]]:
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [(f"{file}, line {number}", line.split()) for number, line in enumerate(lines, 1) if line.strip()]


def _class_id(where: str, fields: Sequence[str]) -> int:
    # Some tools write class numbers as 3.000000.
    if not re.fullmatch(r"\d+(\.0*)?", fields[0]):
        raise UserError(where, "a class number first", repr(fields[0]))
    return int(float(fields[0]))


def _annotated(
    where: str, fields: Sequence[str], numbers: Mapping[int, int], size: ImageSize, pose: bool
) -> Annotated:
    category = _class_id(where, fields)
    if category not in numbers:
        raise UserError(where, f"one of the {len(numbers)} class numbers up to {max(numbers)}", category)
    shown = " ".join(fields[1:9]) + (" ..." if len(fields) > 9 else "")
    polygon = not pose and len(fields) >= 7 and len(fields) % 2 == 1
    try:
        values = [float(field) for field in fields[1:]]
    except ValueError as error:
        raise UserError(where, "numbers after the class number", shown) from error
    if polygon:
        across, down = values[0::2], values[1::2]
        x0, y0, x1, y1 = min(across), min(down), max(across), max(down)
    elif len(values) == 4 or (pose and len(values) > 4):
        x, y, width, height = values[:4]
        x0, y0, x1, y1 = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    else:
        wanted = "class x y width height, or class and at least three corners x y"
        raise UserError(where, wanted, f"{len(fields)} numbers")
    box = (x0 * size.width, y0 * size.height, x1 * size.width, y1 * size.height)
    return Annotated(where, shown, box, numbers[category])

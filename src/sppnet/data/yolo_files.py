"""Find the yaml, the folders, the class names and the images of a YOLO data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.splits import WHOLE, split_folders, split_of
from sppnet.errors import UserError
from sppnet.inputs.documents import load_yaml
from sppnet.inputs.paths import FileFinder, files_under, files_with, inside, is_file, is_folder, name_parts
from sppnet.inputs.text import read_bytes, shown, text_lines
from sppnet.inputs.values import class_name, real, whole
from sppnet.inputs.words import shortened

MOST_CLASSES = 10_000
"""Limit of class numbers without names; a damaged file could otherwise allocate unlimited memory."""

_NULLS = {"", "~", "null", "Null", "NULL"}
_CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels")


@dataclass(frozen=True)
class YoloLayout:
    """The layout of a YOLO data set, from its yaml or its folders.

    Attributes:
        root: the folder of the data set.
        folders: folders that relative paths refer to, in order of preference.
        names: class names by number; None if there are none.
        sources: the folders or lists of images of each split, as written.
        poses: whether a label is a box followed by key points.
    """

    root: Path
    folders: tuple[Path, ...]
    names: dict[int, str] | None
    sources: dict[str, list[str]]
    poses: bool


@dataclass(frozen=True)
class Images:
    """The images of a split.

    Attributes:
        keys: the key of each image: the stem of the file, or its path if two files have the same stem.
        duplicates: images that are listed more than once.
        files: all files in the folders of the split.
    """

    keys: dict[Path, str]
    duplicates: list[str]
    files: list[Path]


def yaml_of(root: Path) -> Path | None:
    """Return the yaml of a data set: ``root``, or the only yaml in it with class names; None without one."""
    if is_file(root):
        return root if root.suffix.lower() in {".yaml", ".yml"} else None
    files = files_with(root, ".yaml", ".yml")
    named = [path for path in files if path.stem.lower() in {"data", "dataset"}]
    matching = named or [path for path in files if b"names" in read_bytes(path).replace(b"\0", b"")]
    if len(matching) > 1:
        found = ", ".join(path.name for path in matching)
        raise UserError(root, "one yaml with class names", found, "Pass the path of one of them.")
    return matching[0] if matching else None


def yolo_layout(root: Path) -> YoloLayout:
    """Detect the layout of a YOLO data set.

    Raises:
        UserError: there is neither a yaml nor folders of images and labels, or the yaml has no classes or
            splits.
    """
    file = yaml_of(root)
    if file is None:
        sources = folder_sources(root)
        if not sources:
            raise UserError(root, "a data.yaml, or the folders images and labels", "neither")
        return YoloLayout(root, (root,), _listed_names(root, sources), sources, False)
    content = load_yaml(file)
    table = cast(dict[str, Any], content) if isinstance(content, dict) else {}
    sources = {key: _entries(file, key, value) for key, value in table.items() if split_of(key)}
    sources = {split: entries for split, entries in sources.items() if entries}
    sources = sources or folder_sources(file.parent)
    names = _yaml_names(file, table)
    if not sources:
        expected = "a train, val or test entry with a folder or list of images"
        raise UserError(file, expected, shortened([shown(key) for key in table]) or "none")
    base: object = table.get("path")
    below = (file.parent / base,) if isinstance(base, str) and base not in _NULLS else ()
    folders = tuple(dict.fromkeys((*below, file.parent)))
    return YoloLayout(file.parent, folders, names, sources, "kpt_shape" in table)


def _entries(file: Path, key: str, value: object) -> list[str]:
    given = cast(list[object], value) if isinstance(value, list) else [value]
    entries = [entry for entry in given if isinstance(entry, str)]
    if len(entries) != len(given):
        raise UserError(f"{file}, {key}", "a folder or list of images, or several", shown(value))
    return [entry for entry in entries if entry not in _NULLS]


def _yaml_names(file: Path, table: Mapping[str, Any]) -> dict[int, str]:
    given: object = table.get("names")
    stated: object = table.get("nc", "")
    count = None if isinstance(stated, str) and stated in _NULLS else whole(stated, f"{file}, nc")
    if count is not None and not 0 < count <= MOST_CLASSES:
        raise UserError(f"{file}, nc", f"1 to {MOST_CLASSES:,} classes", count)
    if given is None or (isinstance(given, str) and given in _NULLS):
        if count is None:
            raise UserError(file, "the class names under names, as a list or by number", given or "none")
        return {number: str(number) for number in range(count)}
    if isinstance(given, list):
        pairs = list(enumerate(cast(list[Any], given)))
    elif isinstance(given, dict) and given:
        pairs = _numbered_names(file, cast(dict[str, Any], given))
    else:
        raise UserError(file, "the class names under names, as a list or by number", shown(given))
    names: dict[int, str] = {}
    for number, name in sorted(pairs, key=lambda pair: pair[0]):
        if number in names:
            got = f"{names[number]!r} and {shown(name)}"
            raise UserError(f"{file}, names, {number}", "each class number once", got)
        names[number] = class_name(name, f"{file}, names, {number}")
    if not names:
        raise UserError(file, "the class names under names, as a list or by number", shown(given))
    if count is not None and count != len(names):
        got = f"{len(names)} names"
        raise UserError(file, f"{count} names, as stated by nc", got, "A missing name shifts the others.")
    return names


def _numbered_names(file: Path, table: Mapping[str, Any]) -> list[tuple[int, Any]]:
    """Return pairs of number and name from a table of names by number or of numbers by name."""

    def is_number(value: object) -> bool:
        return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 18

    if all(map(is_number, table)):
        return [(int(number), name) for number, name in table.items()]
    if not any(map(is_number, table)) and all(map(is_number, table.values())):
        return [(int(number), name) for name, number in table.items()]
    keys = shortened([shown(key).strip("'") for key in table])
    raise UserError(file, "whole numbers as the keys of names", keys)


def folder_sources(root: Path) -> dict[str, list[str]]:
    """Find the sources of a data set without a yaml.

    These are searched, in this order: images/SPLIT with labels/SPLIT, images with labels, SPLIT/images with
    SPLIT/labels, and label files next to the images, in the folders of splits or in ``root``.
    """
    images, labels = inside(root, ["images"]), inside(root, ["labels"])
    found: dict[str, list[str]] = {}
    if images is not None and labels is not None:
        for name, folder in split_folders(images).items():
            if inside(labels, [name]) is not None:
                found[name] = [folder.relative_to(root).as_posix()]
        if found or is_folder(images):
            return found or {WHOLE: [images.name]}
    for name, folder in split_folders(root).items():
        own = inside(folder, ["images"])
        if own is not None and inside(folder, ["labels"]) is not None:
            found[name] = [own.relative_to(root).as_posix()]
    if found:
        return found
    found = {name: [name] for name, folder in split_folders(root).items() if _is_flat(folder)}
    return found or ({WHOLE: ["."]} if _is_flat(root) else {})


def _is_flat(folder: Path) -> bool:
    """Return whether a folder has images and label files with numbers."""
    if not is_folder(folder):
        return False
    labels = {path.stem: path for path in files_with(folder, ".txt")}
    labelled = [labels[path.stem] for path in files_with(folder, *IMAGE_ENDINGS) if path.stem in labels]
    filled = [fields for fields in map(_first_fields, labelled[:50]) if fields]
    return bool(filled) and all(len(fields) >= 5 and _are_numbers(fields) for fields in filled)


def _first_fields(path: Path) -> list[str]:
    lines = text_lines(path)
    return lines[0][1].split() if lines else []


def _are_numbers(fields: Sequence[str]) -> bool:
    try:
        return fields[0].isdigit() and all(real(field) >= 0 for field in fields)
    except ValueError:
        return False


def _listed_names(root: Path, sources: Mapping[str, Sequence[str]]) -> dict[int, str] | None:
    folders = [root, root / "labels", *(root / entry for entries in sources.values() for entry in entries)]
    for file in (folder / name for folder in folders for name in _CLASS_LISTS):
        if is_file(file):
            return _names_by_line(file)
    return None


def _names_by_line(file: Path) -> dict[int, str]:
    """Read a class name per line; a missing name is an error, because it would shift the others."""
    lines = text_lines(file)
    missing_line = next(
        (position for position, (number, _) in enumerate(lines, 1) if position != number), None
    )
    if not lines or missing_line is not None:
        where = file if missing_line is None else f"{file}, line {missing_line}"
        raise UserError(where, "a class name in every line", "none")
    return {number - 1: class_name(line, f"{file}, line {number}") for number, line in lines}


def _resolve(layout: YoloLayout, entry: str) -> Path:
    """Find a folder or list of images: the path as written, else its longest suffix in the data set.

    Exported files often have a folder of another machine, or one level too many. The suffix must contain the
    name of the split, so that no other split is read instead.
    """
    tried = [folder / entry for folder in layout.folders]
    for path in tried:
        if is_folder(path) or is_file(path):
            return path
    parts = [part for part in name_parts(entry) if part != ".."]
    last = max((i for i, part in enumerate(parts) if split_of(part)), default=len(parts) - 1)
    for folder in layout.folders:
        for start in range(last + 1):
            path = inside(folder, parts[start:])
            if path is not None:
                return path
    raise UserError(
        layout.root,
        f"a folder or list of images {entry[:200]}",
        "none",
        f"It was searched at {str(tried[0])[:300]}, for example.",
    )


def images_of(layout: YoloLayout, split: str) -> Images:
    """Return the images of a split, in the order of its folders and lists.

    Raises:
        UserError: a folder, a list or listed images are missing; the message names them.
    """
    found: dict[Path, Path] = {}
    files: list[Path] = []
    duplicates: list[str] = []
    for source in (_resolve(layout, entry) for entry in layout.sources[split]):
        if is_folder(source):
            inner = files_under(source)
            files += inner
            images = {
                path: path.relative_to(source) for path in inner if path.suffix.lower() in IMAGE_ENDINGS
            }
        else:
            images = _listed_images(layout, source, duplicates)
        duplicates += [path.name for path in images if path in found]
        found.update({path: name for path, name in images.items() if path not in found})
    stems = Counter(path.stem for path in found)
    keys = {
        path: path.stem if stems[path.stem] == 1 else name.with_suffix("").as_posix()
        for path, name in found.items()
    }
    return Images(keys, duplicates, files)


def _listed_images(layout: YoloLayout, source: Path, duplicates: list[str]) -> dict[Path, Path]:
    finder = FileFinder([source.parent, *layout.folders], layout.root, split_of)
    found: dict[Path, Path] = {}
    missing: list[str] = []
    for _, line in text_lines(source):
        name = line.strip("\"'")
        path = finder.find(name)
        if path is None:
            missing.append(name)
            continue
        path = Path(os.path.normpath(path))
        if path in found:
            duplicates.append(path.name)
        found[path] = Path(*name_parts(name))
    if missing:
        what = "the image" if len(missing) == 1 else f"the {len(missing)} images"
        raise UserError(source, f"{what} {shortened(missing)}", "no such file")
    return found

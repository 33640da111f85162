"""Find and read the annotation files of a COCO data set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from sppnet.data.splits import split_folders
from sppnet.errors import UserError
from sppnet.inputs.documents import load_json, parse_json
from sppnet.inputs.paths import files_with, folders_in
from sppnet.inputs.text import read_bytes, read_text, shown
from sppnet.inputs.values import class_name, identifier, same_key
from sppnet.inputs.words import shortened

_CATEGORIES = re.compile(r'"categories"\s*:\s*(?=\[)')
_EXPORTED = "_annotations.coco.json"

Record: TypeAlias = Mapping[str, Any]


def annotation_files(root: Path) -> dict[str, Path]:
    """Return the annotation file of each split. Files at other paths than those of COCO are checked first."""
    folders = [folder for folder in folders_in(root) if folder.name.lower() == "annotations"]
    candidates = [path for folder in folders for path in files_with(folder, ".json")]
    instances = {
        path.stem.removeprefix("instances_"): path
        for path in candidates
        if path.name.startswith("instances_")
    }
    if instances:
        return instances
    exported = {folder.name: folder / _EXPORTED for folder in folders_in(root)}
    exported = {name: path for name, path in exported.items() if path.is_file()}
    if exported:
        return exported
    found = {path.stem: path for path in (*candidates, *files_with(root, ".json")) if holds_boxes(path)}
    if found:
        return found
    by_folder = {name: _only(files_with(folder, ".json")) for name, folder in split_folders(root).items()}
    return {name: path for name, path in by_folder.items() if path is not None}


def _only(files: Sequence[Path]) -> Path | None:
    found = [path for path in files if holds_boxes(path)]
    if len(found) > 1:
        got = shortened([path.name for path in found])
        raise UserError(found[0].parent, "one file of annotations", got)
    return found[0] if found else None


def holds_boxes(path: Path) -> bool:
    """Return whether a file has the four keys of COCO annotations, in UTF-8 or UTF-16."""
    text = read_bytes(path)
    text = text.replace(b"\0", b"") if b"\0" in text[:4] else text
    return all(key in text for key in (b'"images"', b'"annotations"', b'"categories"', b'"bbox"'))


def load_annotations(file: Path) -> Record:
    """Read an annotation file.

    Raises:
        UserError: the file is not a JSON object.
    """
    content = load_json(file)
    if not isinstance(content, dict):
        expected = "a JSON object with images, annotations and categories"
        raise UserError(file, expected, type(content).__name__)
    return cast(Record, content)


def records(file: Path, content: Record, name: str) -> Sequence[Record]:
    """Return one of the lists of an annotation file.

    Raises:
        UserError: the entry is not a list of objects.
    """
    entries: object = content.get(name)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) for entry in cast(list[Any], entries)
    ):
        raise UserError(file, f'a list of objects under "{name}"', type(entries).__name__)
    return cast(Sequence[Record], entries)


def read_categories(file: Path) -> list[tuple[int | str, str]]:
    """Read the id and the name of each category.

    Only the list of categories is parsed, because parsing a whole large file takes much longer.

    Raises:
        UserError: the list is missing, an id is duplicate, or a category has no name.
    """
    text = read_text(file)
    for match in _CATEGORIES.finditer(text):
        entries = cast(list[Any], parse_json(text, file, match.end()))
        if entries and all(isinstance(entry, dict) and "id" in entry for entry in entries):
            return _declared(file, cast(Sequence[Record], entries))
    raise UserError(file, 'a list "categories" of objects with an id and a name', "none")


def _declared(file: Path, entries: Sequence[Record]) -> list[tuple[int | str, str]]:
    found: list[tuple[int | str, str]] = []
    names: dict[int | str, str] = {}
    for entry in entries:
        number = identifier(entry["id"], f"{file}, categories", "a whole number or a text as id")
        name = class_name(entry.get("name"), f"{file}, category {shown(number)}")
        if same_key(number) in names:
            got = f"{names[same_key(number)]!r} and {name!r}"
            raise UserError(f"{file}, category {shown(number)}", "each category id once", got)
        names[same_key(number)] = name
        found.append((number, name))
    return found


def joined_categories(tables: Mapping[Path, Sequence[tuple[int | str, str]]]) -> list[tuple[int | str, str]]:
    """Join the categories of all splits, by ascending id, numbers before texts.

    Raises:
        UserError: a category has different names in two splits.
    """
    found: dict[int | str, tuple[int | str, str]] = {}
    for file, table in tables.items():
        for number, name in table:
            _, known = found.setdefault(same_key(number), (number, name))
            if known != name:
                expected = f"the name {known!r} of category {shown(number)}, as in another split"
                raise UserError(file, expected, repr(name))
    order = sorted(
        found, key=lambda key: (isinstance(key, str), key if isinstance(key, int) else 0, str(key))
    )
    return [found[key] for key in order]

"""Image and category ids of a COCO data set, for results in COCO format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from sppnet.errors import UserError


@dataclass
class CocoIds:
    """Image and category ids from the annotation files of a data set.

    Attributes:
        images: image ids by ``file_name``, with forward slashes.
        categories: category ids by name.

    Examples:
        >>> ids = CocoIds({"val/a.jpg": 101}, {"cat": 3})
        >>> ids.image_id(Path("data/val/a.jpg")), ids.category_ids(("cat",))
        (101, (3,))
    """

    images: dict[str, int | str] = field(default_factory=dict[str, "int | str"])
    categories: dict[str, int | str] = field(default_factory=dict[str, "int | str"])
    _ambiguous: set[str] = field(default_factory=set[str], repr=False)
    _by_name: dict[str, list[str]] | None = field(default=None, repr=False)

    def add(self, other: CocoIds, prefix: str = "") -> None:
        """Add the ids of another file; a name with two different ids is removed."""
        for name, number in other.images.items():
            full = prefix + name
            if full in self._ambiguous or self.images.setdefault(full, number) != number:
                self.images.pop(full, None)
                self._ambiguous.add(full)
        self.categories |= other.categories

    def image_id(self, path: Path) -> int | str | None:
        """Return the id of an image file; None if no ``file_name`` or more than one matches."""
        parts = path.absolute().as_posix().split("/")
        if self._by_name is None:
            self._by_name = {}
            for name in self.images:
                self._by_name.setdefault(PurePosixPath(name).name, []).append(name)
        matching = self._by_name.get(parts[-1], [])
        exact = [name for name in matching if _ends_with(parts, name)]
        if exact:
            return self.images[max(exact, key=lambda name: name.count("/"))]
        return self.images[matching[0]] if len(matching) == 1 else None

    def category_ids(self, names: Iterable[str]) -> tuple[int | str, ...] | None:
        """Return the id of each class; None if the data set lacks one of them."""
        found = [self.categories.get(name) for name in names]
        return None if None in found else tuple(cast("list[int | str]", found))


def read_coco_ids(file: Path) -> CocoIds:
    """Read the ids of a COCO annotation file or image list.

    Raises:
        UserError: the file cannot be read, has no ``images``, or has two ids for a file name.
    """
    ids = _read(file)
    if ids is None:
        raise UserError(file, 'COCO JSON with "images", each with "file_name" and "id"', "other content")
    return ids


def find_coco_ids(folder: Path, *, loose: bool = True) -> CocoIds:
    """Read the ids of all annotation files of a folder; empty if it is not a COCO data set.

    Args:
        folder: the data set.
        loose: also read all JSON files of the folder itself.
    """
    found = CocoIds()
    patterns = ("annotations/*.json", "*/_annotations.coco.json", *(["*.json"] if loose else []))
    for file in [path for pattern in patterns for path in sorted(folder.glob(pattern))]:
        try:
            ids = _read(file)
        except UserError:  # JSON of another kind
            continue
        if ids is not None:
            exported = file.name == "_annotations.coco.json" and file.parent != folder
            found.add(ids, f"{file.parent.name}/" if exported else "")
    return found


def _read(file: Path) -> CocoIds | None:
    try:
        content: object = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        got = getattr(error, "strerror", None) or f"an unreadable file ({error})"
        raise UserError(file, "COCO JSON", got) from error
    if not isinstance(content, dict):
        return None
    tables = cast("dict[str, Any]", content)
    ids = CocoIds()
    for record in _records(tables.get("images")):
        name, number = record.get("file_name"), record.get("id")
        if not isinstance(name, str) or not _is_id(number):
            return None
        normalised = name.replace("\\", "/").removeprefix("./")
        number = cast("int | str", number)
        if ids.images.setdefault(normalised, number) != number:
            raise UserError(file, f"one id for {name}", f"{ids.images[normalised]} and {number}")
    for record in _records(tables.get("categories")):
        if isinstance(record.get("name"), str) and _is_id(record.get("id")):
            ids.categories[record["name"]] = record["id"]
    return ids if ids.images else None


def _records(value: object) -> list[dict[str, Any]]:
    records = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", record) for record in records if isinstance(record, dict)]


def _is_id(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _ends_with(parts: list[str], name: str) -> bool:
    tail = [part for part in name.split("/") if part]
    return parts[-len(tail) :] == tail

"""The ids that a COCO data set gives its images and categories, for results that its tools can read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from sppnet.errors import UserError


@dataclass
class CocoIds:
    """Ids by name, from the annotation files of one data set.

    Attributes:
        images: by ``file_name``, with forward slashes.
        categories: by name.

    Examples:
        >>> ids = CocoIds({"val/a.jpg": 101}, {"cat": 3})
        >>> ids.image_id(Path("data/val/a.jpg")), ids.category_ids(("cat",))
        (101, (3,))
    """

    images: dict[str, int | str] = field(default_factory=dict[str, "int | str"])
    categories: dict[str, int | str] = field(default_factory=dict[str, "int | str"])
    _twice: set[str] = field(default_factory=set[str], repr=False)
    _by_name: dict[str, list[str]] | None = field(default=None, repr=False)

    def add(self, other: CocoIds, prefix: str = "") -> None:
        """Take in the ids of another file; a name with two ids is known by neither."""
        for name, number in other.images.items():
            whole = prefix + name
            if whole in self._twice or self.images.setdefault(whole, number) != number:
                self.images.pop(whole, None)
                self._twice.add(whole)
        self.categories |= other.categories

    def image_id(self, path: Path) -> int | str | None:
        """The id of an image file; None where no ``file_name``, or more than one of that ending, fits."""
        parts = path.absolute().as_posix().split("/")
        if self._by_name is None:
            self._by_name = {}
            for name in self.images:
                self._by_name.setdefault(PurePosixPath(name).name, []).append(name)
        fitting = self._by_name.get(parts[-1], [])
        exact = [name for name in fitting if _ends_with(parts, name)]
        if exact:
            return self.images[max(exact, key=lambda name: name.count("/"))]
        return self.images[fitting[0]] if len(fitting) == 1 else None

    def category_ids(self, names: Iterable[str]) -> tuple[int | str, ...] | None:
        """The id of each class; None where the data set lacks one of them."""
        found = [self.categories.get(name) for name in names]
        return None if None in found else tuple(cast("list[int | str]", found))


def read_coco_ids(file: Path) -> CocoIds:
    """The ids in a COCO annotation file, or in an image list of that form.

    Raises:
        UserError: a file that cannot be read, without ``images``, or with two ids for one file name.
    """
    ids = _read(file)
    if ids is None:
        raise UserError(file, 'COCO JSON with "images", each with "file_name" and "id"', "other content")
    return ids


def find_coco_ids(folder: Path, *, loose: bool = True) -> CocoIds:
    """The ids of all annotation files of a COCO data set; empty where the folder is none.

    Args:
        folder: the data set.
        loose: look at all JSON files of the folder itself, too.
    """
    found = CocoIds()
    places = ("annotations/*.json", "*/_annotations.coco.json", *(["*.json"] if loose else []))
    for file in [path for place in places for path in sorted(folder.glob(place))]:
        try:
            ids = _read(file)
        except UserError:  # another kind of JSON, which says nothing about images
            continue
        if ids is not None:
            exported = file.name == "_annotations.coco.json" and file.parent != folder
            found.add(ids, f"{file.parent.name}/" if exported else "")
    return found


def _read(file: Path) -> CocoIds | None:
    try:
        content: object = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        got = getattr(error, "strerror", None) or f"what cannot be read ({error})"
        raise UserError(file, "COCO JSON", got) from error
    if not isinstance(content, dict):
        return None
    tables = cast("dict[str, Any]", content)
    ids = CocoIds()
    for record in _records(tables.get("images")):
        name, number = record.get("file_name"), record.get("id")
        if not isinstance(name, str) or not _is_id(number):
            return None
        plain = name.replace("\\", "/").removeprefix("./")
        number = cast("int | str", number)
        if ids.images.setdefault(plain, number) != number:
            raise UserError(file, f"one id for {name}", f"{ids.images[plain]} and {number}")
    for record in _records(tables.get("categories")):
        if isinstance(record.get("name"), str) and _is_id(record.get("id")):
            ids.categories[record["name"]] = record["id"]
    return ids if ids.images else None


def _records(value: object) -> list[dict[str, Any]]:
    rows = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", row) for row in rows if isinstance(row, dict)]


def _is_id(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _ends_with(parts: list[str], name: str) -> bool:
    tail = [part for part in name.split("/") if part]
    return parts[-len(tail) :] == tail

"""List folders, and find files by paths that were written on other machines."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from sppnet.errors import UserError
from sppnet.inputs.text import reading
from sppnet.inputs.words import shortened


def name_parts(name: str) -> tuple[str, ...]:
    r"""Split a path of any operating system into its names, without drive, root and ``.``.

    Examples:
        >>> name_parts("C:\\data\\.\\a.jpg"), name_parts("./x/a.jpg")
        (('data', 'a.jpg'), ('x', 'a.jpg'))
    """
    parts = [part for part in re.split(r"[\\/]+", name.strip()) if part not in {"", "."}]
    return tuple(parts[1:] if parts and re.fullmatch(r"[A-Za-z]:", parts[0]) else parts)


def is_file(path: Path) -> bool:
    """Return whether a path is a file; False if the name is too long or has a NUL character."""
    return os.path.isfile(path)


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False if the name is too long or has a NUL character."""
    return os.path.isdir(path)


def listed(folder: Path) -> list[Path]:
    """List the entries of a folder, sorted, without hidden ones such as ``._a.xml`` of macOS.

    Raises:
        UserError: the folder cannot be read.
    """
    with reading(folder):
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted, without hidden ones; empty if it is not a folder."""
    return [path for path in listed(folder) if is_folder(path)] if is_folder(folder) else []


def files_with(folder: Path, *endings: str) -> list[Path]:
    """List the files in a folder with one of these extensions, in any case, sorted."""
    if not is_folder(folder):
        return []
    return [path for path in listed(folder) if path.suffix.lower() in endings and is_file(path)]


def files_under(folder: Path) -> list[Path]:
    """List all files of a folder and its subfolders, sorted, without hidden ones.

    Raises:
        UserError: the folder or a folder in it cannot be read.
    """
    files: list[Path] = []

    def refuse(error: OSError) -> None:
        raise error

    with reading(folder):
        for current, folders, names in os.walk(folder, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [Path(current, name) for name in names if not name.startswith(".")]
    return sorted(path for path in files if is_file(path))


def inside(folder: Path, parts: Sequence[str]) -> Path | None:
    """Return the path of nested names below a folder, ignoring case if needed; None if it is missing."""
    current = folder
    for part in parts:
        if os.path.exists(current / part):
            current = current / part
            continue
        matching = (
            [path for path in listed(current) if _same_ignoring_case(path.name, part)]
            if is_folder(current)
            else []
        )
        if len(matching) != 1:
            return None
        current = matching[0]
    return current if os.path.exists(current) else None


def _same_ignoring_case(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


class FileFinder:
    r"""Find files by names that may contain folders of another machine, backslashes or another case.

    Args:
        folders: folders that names are relative to, in order of preference.
        root: the folder whose files are searched if ``folders`` do not have a name.
        split_of: maps the name of a folder to its split, or to None. A file of another split than that of
            the name is never returned.

    Examples:
        >>> FileFinder([Path("images")], Path("nowhere"), lambda name: None).find(r"C:\x\a.jpg") is None
        True
    """

    def __init__(self, folders: Sequence[Path], root: Path, split_of: Callable[[str], str | None]) -> None:
        self._folders = list(folders)
        self._root = root
        self._split_of = split_of
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path | None:
        """Return the file of a name: the path as written, else its longest suffix that exists.

        Returns:
            The path; None if no file matches.

        Raises:
            UserError: several files match equally well.
        """
        for position, folder in enumerate(self._folders):
            if is_file(folder / name):
                # The folder of this file is tried first for the next one.
                self._folders.insert(0, self._folders.pop(position))
                return self._folders[0] / name
        parts = name_parts(name)
        for start in range(len(parts)):
            if ".." in parts[start:]:
                continue
            for folder in self._folders:
                path = folder.joinpath(*parts[start:])
                if is_file(path) and self._same_split(path, parts):
                    return path
        return self._search_root(name, parts)

    def _same_split(self, path: Path, parts: Sequence[str]) -> bool:
        """Return whether a name and the path of a file do not name different splits."""
        try:
            own = path.relative_to(self._root).parts
        except ValueError:
            own = path.parts[-3:]
        expected = [split for split in map(self._split_of, parts[:-1]) if split]
        found = [split for split in map(self._split_of, own[:-1]) if split]
        return not expected or not found or expected[-1] == found[-1]

    def _search_root(self, name: str, parts: Sequence[str]) -> Path | None:
        if self._by_name is None:
            self._by_name = {}
            for path in files_under(self._root) if is_folder(self._root) else []:
                self._by_name.setdefault(path.name.casefold(), []).append(path)
        if not parts:
            return None
        ranked = [
            (_common_end(path.parts, parts), path)
            for path in self._by_name.get(parts[-1].casefold(), [])
            if self._same_split(path, parts)
        ]
        longest = max((length for length, _ in ranked), default=0)
        matching = [path for length, path in ranked if length == longest]
        if len(matching) > 1:
            raise UserError(self._root, f"one file for {name[:200]}", shortened(matching))
        return matching[0] if matching else None


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next(
        (count for count, pair in enumerate(pairs) if not _same_ignoring_case(*pair)),
        min(len(one), len(other)),
    )

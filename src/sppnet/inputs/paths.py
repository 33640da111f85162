"""Files by the names that other machines gave them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from sppnet.errors import UserError
from sppnet.inputs.text import reading
from sppnet.inputs.words import shortened


def name_parts(name: str) -> tuple[str, ...]:
    r"""The folders and the file of a path of any system, without drive, root and ``.``.

    Examples:
        >>> name_parts("C:\\data\\.\\a.jpg"), name_parts("./x/a.jpg")
        (('data', 'a.jpg'), ('x', 'a.jpg'))
    """
    parts = [part for part in re.split(r"[\\/]+", name.strip()) if part not in {"", "."}]
    return tuple(parts[1:] if parts and re.fullmatch(r"[A-Za-z]:", parts[0]) else parts)


def is_file(path: Path) -> bool:
    """Whether there is such a file; False too where the name is too long or holds a NUL."""
    return os.path.isfile(path)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False too where the name is too long or holds a NUL."""
    return os.path.isdir(path)


def listed(folder: Path) -> list[Path]:
    """What a folder holds, sorted, hidden entries (``._a.xml`` of macOS among them) left out.

    Raises:
        UserError: it cannot be read.
    """
    with reading(folder):
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, hidden ones left out; none where it is no folder."""
    return [path for path in listed(folder) if is_folder(path)] if is_folder(folder) else []


def files_with(folder: Path, *endings: str) -> list[Path]:
    """The files in a folder with one of these endings, upper case included, sorted."""
    if not is_folder(folder):
        return []
    return [path for path in listed(folder) if path.suffix.lower() in endings and is_file(path)]


def files_under(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders, hidden ones left out, sorted.

    Raises:
        UserError: a folder in it cannot be read.
    """
    files: list[Path] = []

    def refuse(error: OSError) -> None:
        raise error

    with reading(folder):
        for here, folders, names in os.walk(folder, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [Path(here, name) for name in names if not name.startswith(".")]
    return sorted(path for path in files if is_file(path))


def inside(folder: Path, parts: Sequence[str]) -> Path | None:
    """The path below a folder, its names compared without case where need be; None where there is none."""
    here = folder
    for part in parts:
        if os.path.exists(here / part):
            here = here / part
            continue
        alike = [path for path in listed(here) if _alike(path.name, part)] if is_folder(here) else []
        if len(alike) != 1:
            return None
        here = alike[0]
    return here if os.path.exists(here) else None


def _alike(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


class FileFinder:
    r"""Look up files by names that may carry another machine's folders, backslashes or another case.

    Args:
        folders: where names refer to, top first.
        root: all files below it are searched where the folders do not have a name.
        split_of: the split that a folder's name stands for, or None: a file of one split is never
            taken for one of another.

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
        """The file that a name stands for: as written, else the longest end of it that exists.

        Raises:
            UserError: several files fit equally well.
        """
        for position, folder in enumerate(self._folders):
            if is_file(folder / name):
                # The folder that had this file is asked first for the next one.
                self._folders.insert(0, self._folders.pop(position))
                return self._folders[0] / name
        parts = name_parts(name)
        for start in range(len(parts)):
            if ".." in parts[start:]:
                continue
            for folder in self._folders:
                path = folder.joinpath(*parts[start:])
                if is_file(path) and self._agree(path, parts):
                    return path
        return self._elsewhere(name, parts)

    def _agree(self, path: Path, parts: Sequence[str]) -> bool:
        """Whether a name does not speak of another split than the path of the file."""
        try:
            own = path.relative_to(self._root).parts
        except ValueError:
            own = path.parts[-3:]
        wanted = [split for split in map(self._split_of, parts[:-1]) if split]
        found = [split for split in map(self._split_of, own[:-1]) if split]
        return not wanted or not found or wanted[-1] == found[-1]

    def _elsewhere(self, name: str, parts: Sequence[str]) -> Path | None:
        if self._by_name is None:
            self._by_name = {}
            for path in files_under(self._root) if is_folder(self._root) else []:
                self._by_name.setdefault(path.name.casefold(), []).append(path)
        if not parts:
            return None
        ranked = [
            (_common_end(path.parts, parts), path)
            for path in self._by_name.get(parts[-1].casefold(), [])
            if self._agree(path, parts)
        ]
        best = max((rank for rank, _ in ranked), default=0)
        fitting = [path for rank, path in ranked if rank == best]
        if len(fitting) > 1:
            raise UserError(self._root, f"one file that {name[:200]} stands for", shortened(fitting))
        return fitting[0] if fitting else None


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((count for count, pair in enumerate(pairs) if not _alike(*pair)), min(len(one), len(other)))

"""The folder that ``sppnet predict`` writes: marked, resumed, and never mixed with files of the user.

::

    .sppnet-predictions.jsonl  first the run and the options, then one line for each file before it is written
    predictions.jsonl          one line per image as soon as it is done: its result, or why there is none
    predictions.json           everything of the last call
    NAME.jpg                   the drawn images
    NAME.mp4, NAME.jsonl       the drawn videos, and one line per frame

A file that is not listed with its size and digest belongs to the user: it is neither replaced nor removed.
The caller holds the lock of the folder, so that no other process writes to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from sppnet.data.search import OUTPUT_MARK, written_files
from sppnet.errors import UserError
from sppnet.files import append_line, make_folder, remove, remove_temporaries, write_bytes, write_text
from sppnet.runs import json_text

__all__ = ["LINES", "PredictionFolder", "free_names", "plain_stem", "source_state"]

LINES = "predictions.jsonl"
_LONGEST = 200  # bytes of a drawn image's stem; most file systems allow names of 255


class PredictionFolder:
    """A folder of predictions of one run with one set of options.

    Args:
        out: the folder; made where missing.
        key: what decides about a result: the run and the options.
        names: files that will be written beside the drawn images.
        restart: remove what an earlier call left there.

    Raises:
        UserError: a folder that cannot be written, holds files of the user under ``names``, or results of
            another run or with other options.
    """

    def __init__(
        self, out: Path, key: Mapping[str, object], names: Iterable[str] = (), *, restart: bool = False
    ) -> None:
        self.out = out
        make_folder(out)
        remove_temporaries(out)
        self._records = written_files(out)
        if restart:
            self._remove()
        for name in (LINES, *names):
            if os.path.lexists(out / name) and not self.is_ours(name):
                wanted = "a free name, or a file that sppnet predict wrote"
                raise UserError(out / name, wanted, "another file", "Name another folder with --out")
        self._check_key(key)
        self._lines = self._read_lines()
        self.drawn: dict[Path, str] = {}

    def kept(self, path: Path) -> dict[str, Any] | None:
        """The line of an image that an earlier call predicted; None where it has to be predicted."""
        return self._lines.get(_identity(path))

    def name_drawings(self, paths: Iterable[Path]) -> None:
        """Choose the name of each drawn image; none is that of a file of the user."""
        taken = {Path(str(line.get("drawn", ""))).name for line in self._lines.values()}
        # What is left of ours has no result: a killed call wrote it last.
        taken |= {name for name in _names_in(self.out) if name not in taken and not self.is_ours(name)}
        pending = [path for path in paths if self.kept(path) is None]
        self.drawn = free_names(pending, taken)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file of ours; its mark comes first, so that it is known however the process ends."""
        self._mark(name, len(content), hashlib.sha256(content).hexdigest())
        write_bytes(self.out / name, content)
        return self.out / name

    def mark(self, name: str, written: Path) -> None:
        """List a file of ours that was written elsewhere and is about to be renamed to ``name``."""
        with written.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._mark(name, written.stat().st_size, digest)

    def _mark(self, name: str, size: int, digest: str) -> None:
        record = {"name": name, "size": size, "sha256": digest}
        append_line(self.out / OUTPUT_MARK, json_text(record, indent=None))
        self._records[name] = record

    def add(self, path: Path, line: Mapping[str, object]) -> None:
        """Add the result of an image to ``predictions.jsonl``."""
        whole = {**line, "file": source_state(path)}
        append_line(self.out / LINES, json_text(whole, indent=None))
        self._lines[_identity(path)] = whole

    def add_failure(self, path: Path, error: UserError) -> None:
        """Add the reason why an image has no result; the next call tries it again."""
        append_line(self.out / LINES, json_text({"path": path, "error": str(error)}, indent=None))

    def _check_key(self, key: Mapping[str, object]) -> None:
        mark = self.out / OUTPUT_MARK
        wanted = json.loads(json_text(key))
        found = _marked_key(mark)
        if found is None:
            append_line(mark, json_text({"key": wanted}, indent=None))
            return
        if found == wanted:
            return
        differ = [name for name in wanted if found.get(name) != wanted[name]]
        got = "those of another " + ", ".join(differ or ["version"])
        hint = "Name another folder with --out, or pass --restart to replace them"
        raise UserError(self.out, "predictions of the same run and options", got, hint)

    def _read_lines(self) -> dict[str, dict[str, Any]]:
        """The lines of images that are as they were and were predicted; others are taken out of the file."""
        path = self.out / LINES
        if not path.exists():
            # Marked before it is made, as every other file; it grows, so it has no digest.
            append_line(self.out / OUTPUT_MARK, json_text({"name": LINES}, indent=None))
            self._records[LINES] = {"name": LINES}
            write_bytes(path, b"")
            return {}
        raw = path.read_bytes().splitlines()
        lines: dict[str, dict[str, Any]] = {}
        for text in raw:
            try:
                line: object = json.loads(text)
            except ValueError:  # a killed writer's last line
                continue
            if not isinstance(line, dict) or "path" not in line or "error" in line:
                continue
            record = cast("dict[str, Any]", line)
            source = Path(str(record["path"]))
            drawn = record.get("drawn")
            still = drawn is None or (self.out / Path(str(drawn)).name).exists()
            if still and record.get("file") == source_state(source):
                lines[_identity(source)] = record
        if len(lines) != len(raw):
            write_text(path, "".join(json_text(line, indent=None) + "\n" for line in lines.values()))
        return lines

    def _remove(self) -> None:
        for name in list(self._records):
            if self.is_ours(name):
                remove(self.out / name)
        remove(self.out / OUTPUT_MARK)
        self._records = {}

    def is_ours(self, name: str) -> bool:
        """Return whether a file is as an earlier call or this one wrote it."""
        record, path = self._records.get(name), self.out / name
        if record is None or path.is_symlink() or not path.is_file():
            return False
        if name == LINES:
            return True
        if path.stat().st_size != record.get("size"):
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == record.get("sha256")


def free_names(images: Iterable[Path], taken: Iterable[str] = ()) -> dict[Path, str]:
    """A file name for each drawn image: its own with .jpg, and a number where that is taken.

    Names that differ in case or in Unicode's form alone count as one. Control characters and bytes that are
    not UTF-8 become ``_``; long names are cut.

    Args:
        images: the images.
        taken: names that are not free.

    Examples:
        >>> list(free_names([Path("a/1.png"), Path("b/1.jpg")], ["2.jpg"]).values())
        ['1.jpg', '1-2.jpg']
    """
    names: dict[Path, str] = {}
    used = {_folded(name) for name in taken}
    numbers: dict[str, int] = {}
    for path in images:
        stem = plain_stem(path)
        name, number = f"{stem}.jpg", numbers.get(stem, 1)
        while _folded(name) in used:
            number += 1
            name = f"{stem}-{number}.jpg"
        numbers[stem] = number
        used.add(_folded(name))
        names[path] = name
    return names


def source_state(path: Path) -> dict[str, int] | None:
    """Size and time of an image file, by which a resumed call sees that it changed."""
    try:
        state = path.stat()
    except OSError:
        return None
    return {"bytes": state.st_size, "modified_ns": state.st_mtime_ns}


def plain_stem(path: Path) -> str:
    """Return the stem of a file as a name that every file system and terminal takes."""
    hidden = ("Cc", "Cf", "Cs")
    stem = "".join("_" if unicodedata.category(ch) in hidden else ch for ch in path.stem)
    while len(os.fsencode(stem)) > _LONGEST:
        stem = stem[:-1]
    return stem or "image"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _identity(path: Path) -> str:
    return os.path.abspath(path)


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise UserError(folder, "a folder that can be read", error.strerror or error) from error


def _marked_key(mark: Path) -> dict[str, Any] | None:
    try:
        lines = mark.read_bytes().splitlines()
    except OSError:
        return None
    for text in lines:
        try:
            line: object = json.loads(text)
        except ValueError:  # a killed writer's last line
            continue
        if isinstance(line, dict) and isinstance(line.get("key"), dict):
            return cast("dict[str, Any]", line["key"])
    return None

"""The output folder of ``sppnet predict``, which can be resumed and protects files of the user.

::

    .sppnet-predictions.jsonl  run and options, then one line per file, appended before the file is written
    predictions.jsonl          one line per image, appended when it is finished: its result or its error
    predictions.json           all results of the last call
    NAME.jpg                   the drawn images
    NAME.mp4, NAME.jsonl       the drawn videos, and one line per frame

A file that is not listed with its size and digest belongs to the user and is neither replaced nor removed.
The caller holds the lock of the folder, so that no other process writes to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sppnet.data.search import OUTPUT_MARK, written_files
from sppnet.errors import UserError
from sppnet.files import append_line, make_folder, remove, remove_temporaries, write_bytes, write_text
from sppnet.inputs.documents import json_lines
from sppnet.runs import json_text

__all__ = ["LINES", "PredictionFolder", "free_names", "plain_stem", "source_state"]

LINES = "predictions.jsonl"
_LONGEST = 200  # bytes of the stem of a drawn image; most file systems allow names of 255


class PredictionFolder:
    """A folder of predictions of one run with one set of options.

    Args:
        out: the folder, which is created if it does not exist.
        key: run and options, which determine the results.
        names: names of files other than drawn images that will be written.
        restart: remove the files of earlier calls.

    Attributes:
        drawn: file name of each drawn image.

    Raises:
        UserError: the folder is not writable, or has files of the user with ``names``, or results of another
            run or with other options.
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
                expected = "an unused name, or a file written by sppnet predict"
                raise UserError(out / name, expected, "another file", "Choose another folder with --out.")
        self._check_key(key)
        self._lines = self._read_lines()
        self.drawn: dict[Path, str] = {}

    def line_of(self, path: Path) -> dict[str, Any] | None:
        """Return the line of an image of an earlier call; None if it must be predicted."""
        return self._lines.get(_identity(path))

    def name_drawings(self, paths: Iterable[Path]) -> None:
        """Choose names of drawn images that differ from those of files of the user."""
        taken = {Path(str(line.get("drawn", ""))).name for line in self._lines.values()}
        # Other files of this package have no result, because the process was killed; they are replaced.
        taken |= {name for name in _names_in(self.out) if name not in taken and not self.is_ours(name)}
        pending = [path for path in paths if self.line_of(path) is None]
        self.drawn = free_names(pending, taken)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file, after recording it, so that it is recognised however the process ends."""
        self._record(name, len(content), hashlib.sha256(content).hexdigest())
        write_bytes(self.out / name, content)
        return self.out / name

    def record_file(self, name: str, written: Path) -> None:
        """Record a complete temporary file before the caller renames it to ``name``."""
        with written.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._record(name, written.stat().st_size, digest)

    def _record(self, name: str, size: int, digest: str) -> None:
        record = {"name": name, "size": size, "sha256": digest}
        append_line(self.out / OUTPUT_MARK, json_text(record, indent=None))
        self._records[name] = record

    def add(self, path: Path, line: Mapping[str, object]) -> None:
        """Add the result of an image to ``predictions.jsonl``."""
        whole = {**line, "file": source_state(path)}
        append_line(self.out / LINES, json_text(whole, indent=None))
        self._lines[_identity(path)] = whole

    def add_failure(self, path: Path, error: UserError) -> None:
        """Add the error of an image; the next call tries the image again."""
        append_line(self.out / LINES, json_text({"path": path, "error": str(error)}, indent=None))

    def _check_key(self, key: Mapping[str, object]) -> None:
        mark = self.out / OUTPUT_MARK
        expected = json.loads(json_text(key))
        found = _marked_key(mark)
        if found is None:
            append_line(mark, json_text({"key": expected}, indent=None))
            return
        if found == expected:
            return
        differ = [name for name in expected if found.get(name) != expected[name]]
        got = "predictions of another " + ", ".join(differ or ["version"])
        hint = "Choose another folder with --out, or pass --restart to replace them."
        raise UserError(self.out, "predictions of the same run and options", got, hint)

    def _read_lines(self) -> dict[str, dict[str, Any]]:
        """Read the lines of unchanged images with results; remove other lines from the file."""
        path = self.out / LINES
        if not path.exists():
            # Recorded before it is created, like other files, but without digest because it grows.
            append_line(self.out / OUTPUT_MARK, json_text({"name": LINES}, indent=None))
            self._records[LINES] = {"name": LINES}
            write_bytes(path, b"")
            return {}
        content = path.read_bytes()
        lines: dict[str, dict[str, Any]] = {}
        for record in json_lines(content):
            if "path" not in record or "error" in record:
                continue
            source = Path(str(record["path"]))
            drawn = record.get("drawn")
            still = drawn is None or (self.out / Path(str(drawn)).name).exists()
            if still and record.get("file") == source_state(source):
                lines[_identity(source)] = record
        if len(lines) != len(content.splitlines()):
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
    """Choose unique file names for drawn images: the stem with .jpg, and a number if the name is in use.

    Names that differ only in case or Unicode normalisation are equal. Control characters and bytes that are
    not UTF-8 are replaced by ``_``; long names are truncated.

    Args:
        images: the images.
        taken: names in use.

    Returns:
        The file name of each image.

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
    """Return size and modification time of an image file, to detect changes; None if it does not exist."""
    try:
        state = path.stat()
    except OSError:
        return None
    return {"bytes": state.st_size, "modified_ns": state.st_mtime_ns}


def plain_stem(path: Path) -> str:
    """Return the stem of a file as a name that every file system and terminal accepts."""
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
        raise UserError(folder, "a readable folder", error.strerror or error) from error


def _marked_key(mark: Path) -> dict[str, Any] | None:
    try:
        content = mark.read_bytes()
    except OSError:
        return None
    keys = (record["key"] for record in json_lines(content) if isinstance(record.get("key"), dict))
    return next(keys, None)

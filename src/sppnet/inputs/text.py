"""Bytes and text of files that other programs wrote."""

from __future__ import annotations

import codecs
import os
import re
import reprlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sppnet.errors import UserError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_brief = reprlib.Repr()
_brief.maxlevel, _brief.maxlist, _brief.maxtuple, _brief.maxdict = 2, 5, 5, 4
_brief.maxstring = _brief.maxother = 80


def shown(value: object) -> str:
    """A value in at most a few hundred characters, for messages; aliases of YAML can make it endless.

    Examples:
        >>> shown([1, 2, 3, 4, 5, 6, 7])
        '[1, 2, 3, 4, 5, ...]'
    """
    return _brief.repr(value)


@contextmanager
def reading(where: object) -> Generator[None]:
    """Turn what the file system refuses into a `UserError`: permissions, long names, loops, lost files.

    Examples:
        >>> try:
        ...     with reading("set"):
        ...         Path("missing").read_bytes()
        ... except UserError as error:
        ...     print(error)
        missing: expected a readable file or folder, got No such file or directory
    """
    try:
        yield
    except OSError as error:
        place = str(error.filename or where)
        got = error.strerror or type(error).__name__
        raise UserError(place[:300], "a readable file or folder", got) from error


def read_bytes(path: Path, limit: int = 1 << 40) -> bytes:
    """The content of a file of at most ``limit`` bytes.

    Raises:
        UserError: it cannot be read, or is larger.
    """
    with reading(path), path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise UserError(path, f"at most {limit:,} bytes", f"{size:,}")
        return stream.read()


def encoding_of(start: bytes) -> str:
    """The encoding of a text by its byte order mark; without one UTF-16 is told by its zeros, else UTF-8.

    Examples:
        >>> encoding_of(b"abcd"), encoding_of("ab".encode("utf-16"))
        ('utf-8', 'utf-16')
    """
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    if len(start) >= 2 and not start[1] and start[0]:
        return "utf-16-le"
    if len(start) >= 2 and not start[0] and start[1]:
        return "utf-16-be"
    return "utf-8"


def read_text(path: Path, limit: int = 1 << 40) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Another encoding is not guessed: a wrong guess would change class names without a word.

    Raises:
        UserError: it cannot be read, is no such text, or is larger than ``limit`` bytes.
    """
    content = read_bytes(path, limit)
    try:
        return content.decode(encoding_of(content[:4]))
    except UnicodeError as error:
        got = f"other bytes ({getattr(error, 'reason', error)})"
        raise UserError(path, "text in UTF-8", got, "Save the file in UTF-8") from error


def text_lines(path: Path, limit: int = 1 << 40) -> list[tuple[int, str]]:
    """The lines of a text that are not blank, stripped, with their numbers from 1.

    Raises:
        UserError: as `read_text`, or a NUL character.
    """
    text = read_text(path, limit)
    if "\0" in text:
        raise UserError(path, "a text file", "a file with NUL characters")
    lines = re.split(r"\r\n|\r|\n", text)
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]

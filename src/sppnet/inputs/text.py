"""Read bytes and text of files of other programs."""

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
    """Format a value for messages in at most a few hundred characters; YAML aliases can be infinite.

    Examples:
        >>> shown([1, 2, 3, 4, 5, 6, 7])
        '[1, 2, 3, 4, 5, ...]'
    """
    return _brief.repr(value)


@contextmanager
def reading(where: object) -> Generator[None]:
    """Turn errors of the file system into a `UserError`: permissions, long names, loops, missing files.

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
        path = str(error.filename or where)
        got = error.strerror or type(error).__name__
        raise UserError(path[:300], "a readable file or folder", got) from error


def read_bytes(path: Path, limit: int = 1 << 40) -> bytes:
    """Read a file of at most ``limit`` bytes.

    Raises:
        UserError: the file cannot be read, or is larger.
    """
    with reading(path), path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise UserError(path, f"at most {limit:,} bytes", f"{size:,} bytes")
        return stream.read()


def encoding_of(start: bytes) -> str:
    """Detect the encoding of a text by its byte order mark, else UTF-16 by its zeros, else UTF-8.

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
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Other encodings are not guessed, because a wrong guess would change class names silently.

    Raises:
        UserError: the file cannot be read, is in another encoding, or is larger than ``limit`` bytes.
    """
    content = read_bytes(path, limit)
    try:
        return content.decode(encoding_of(content[:4]))
    except UnicodeError as error:
        got = f"other bytes ({getattr(error, 'reason', error)})"
        raise UserError(path, "text in UTF-8", got, "Save the file in UTF-8.") from error


def text_lines(path: Path, limit: int = 1 << 40) -> list[tuple[int, str]]:
    """Read the lines of a text file that are not blank, stripped, with their numbers from 1.

    Raises:
        UserError: `read_text` fails, or the text has a NUL character.
    """
    text = read_text(path, limit)
    if "\0" in text:
        raise UserError(path, "a text file", "a file with NUL characters")
    lines = re.split(r"\r\n|\r|\n", text)
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]

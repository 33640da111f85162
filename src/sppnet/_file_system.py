"""Errors of the file system as `sppnet.errors.UserError`, temporary files, and flushing of folders."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from sppnet.errors import UserError

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags of `os.open`, as far as the system has them."""


@contextmanager
def reported(path: Path, expected: str = "a file that can be written") -> Generator[None]:
    """Convert errors of the file system to a `UserError` with the path."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(_printable(path), expected, error.strerror or str(error)) from error
    except UnicodeError as error:
        raise UserError(_printable(path), "a name of the file system", "unsupported characters") from error
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise UserError(_printable(path), "a name without null characters", "a null character") from error


def _printable(path: Path) -> str:
    """Return a path as text that any terminal can print."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def flush_folder(folder: Path) -> None:
    """Flush a folder, so that a rename survives a power failure; POSIX only."""
    if os.name == "posix":
        with suppress(OSError):  # some file systems refuse to flush a folder; the content is flushed already
            descriptor = os.open(folder, os.O_RDONLY | cast("int", getattr(os, "O_DIRECTORY", 0)))
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def create_temporary(target: Path) -> tuple[Path, int]:
    """Create a temporary file in the folder of a file, and return its path and a descriptor for writing."""
    temporary = target.parent / f"{temporary_prefix(target.name)}{secrets.token_hex(4)}.part"
    return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666)


def temporary_prefix(name: str) -> str:
    """Return the prefix of the names of temporary files for a file name."""
    return f".sppnet-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"

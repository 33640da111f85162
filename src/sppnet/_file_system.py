"""Failures of the file system as `sppnet.errors.UserError`, and flushing of folders."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from sppnet.errors import UserError


@contextmanager
def reported(path: Path, expected: str = "a file that can be written") -> Generator[None]:
    """Turn failures of the file system into a `UserError` that names the path."""
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

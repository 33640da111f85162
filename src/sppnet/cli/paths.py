"""Checks of paths that need no heavy import, so that a wrong path is answered at once."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sppnet.errors import UserError

__all__ = ["check_data_path", "check_run_path", "check_sources"]

_TODO = "Name a folder that `sppnet fit` wrote."


def check_run_path(run: Path) -> None:
    """Refuse what is clearly no run; `sppnet.runs` checks the rest.

    Raises:
        UserError: no such folder, a file, or a folder without ``model.json``.
    """
    try:
        if not run.exists():
            raise UserError(run, "a run", "no such folder", _TODO)
        if not run.is_dir():
            raise UserError(run, "a run, which is a folder", "a file", _TODO)
        if not (run / "model.json").exists():
            raise UserError(run, "a run", "a folder without model.json", _TODO)
    except (OSError, ValueError) as error:
        _reraise(run, "a run", error)


def check_data_path(data: Path) -> None:
    """Refuse a data set that does not exist.

    Raises:
        UserError: no such folder or file.
    """
    try:
        found = data.exists()
    except (OSError, ValueError) as error:
        _reraise(data, "a folder of labelled images", error)
    if not found:
        raise UserError(data, "a folder of labelled images", "no such folder")


def check_sources(sources: Sequence[str]) -> None:
    """Refuse sources that do not exist; globs are looked at later.

    Raises:
        UserError: no such file or folder.
    """
    for source in sources:
        try:
            found = os.path.lexists(source) or glob.has_magic(source)
        except (OSError, ValueError) as error:
            _reraise(source, "an image, a folder or a glob", error)
        if not found:
            raise UserError(source, "an image, a folder or a glob", "no such file or folder")


def _reraise(where: object, wanted: str, error: OSError | ValueError) -> NoReturn:
    if isinstance(error, UserError):
        raise error
    raise UserError(where, wanted, getattr(error, "strerror", None) or error) from error

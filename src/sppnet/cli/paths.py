"""Validation of paths and extras without heavy imports, so that mistakes are reported at once."""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn, cast

import tyro

from sppnet.cli.flag_table import Flag, PathKind
from sppnet.errors import MissingExtraError, UserError
from sppnet.inputs.sources import expand_glob, is_camera, is_url, is_video

__all__ = [
    "DataPath",
    "InputFile",
    "InputFolder",
    "NewRun",
    "OptionalDataPath",
    "OptionalOutFile",
    "OptionalOutFolder",
    "OptionalRunPath",
    "OutFile",
    "OutFolder",
    "RunPath",
    "WeightsPath",
    "check_extra",
    "check_paths",
    "check_sources",
]

_HINT = "Choose a folder written by `sppnet fit`."


def check_run_path(run: Path) -> None:
    """Check that a path can be a run; `sppnet.runs` validates its content.

    Raises:
        UserError: the path does not exist, is a file, or is a folder without ``model.json``.
    """
    try:
        if not run.exists():
            raise UserError(run, "a run", "no such folder", _HINT)
        if not run.is_dir():
            raise UserError(run, "a run folder", "a file", _HINT)
        if not (run / "model.json").exists():
            raise UserError(run, "a run", "a folder without model.json", _HINT)
    except (OSError, ValueError) as error:
        _reraise(run, "a run", error)


def check_data_path(data: Path) -> None:
    """Check that a data set exists.

    Raises:
        UserError: the folder or file does not exist.
    """
    if not _exists(data, "a folder of labelled images"):
        raise UserError(data, "a folder of labelled images", "no such folder")


def check_weights_path(path: Path) -> None:
    """Check that weights exist, as a file or as a run folder.

    Raises:
        UserError: the file or folder does not exist.
    """
    expected = "a .safetensors file"
    if not _exists(path, expected):
        raise UserError(path, expected, "no such file")


def check_file(path: Path) -> None:
    """Check that an input file exists.

    Raises:
        UserError: the file does not exist.
    """
    if not _exists(path, "a file"):
        raise UserError(path, "a file", "no such file")


def check_folder(path: Path) -> None:
    """Check that an input folder exists.

    Raises:
        UserError: the folder does not exist, or it is a file.
    """
    if not _exists(path, "a folder"):
        raise UserError(path, "a folder", "no such folder")
    if not path.is_dir():
        raise UserError(path, "a folder", "a file")


def check_sources(sources: Sequence[str]) -> None:
    """Check that sources exist, and that PyAV is installed if there are videos or cameras.

    Raises:
        UserError: a file or folder does not exist, or a glob has no matches.
        MissingExtraError: PyAV is not installed.
    """
    for source in sources:
        if is_camera(source) or is_url(source):
            continue
        expected = "an image, a folder or a glob"
        if _exists(source, expected):
            continue
        if not glob.has_magic(source):
            raise UserError(source, expected, "no such file or folder")
        if next(expand_glob(source), None) is None:
            raise UserError(source, expected, "no match")
    if any(map(is_video, sources)):
        check_extra("av", "video", "videos and cameras")


def check_extra(package: str, extra: str, job: str) -> None:
    """Check that an optional package is installed, without importing it.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # blocked or incomplete
        found = None
    if found is None:
        raise MissingExtraError(package, extra, job)


OutFile = Annotated[Path, tyro.conf.arg(metavar="FILE"), PathKind(None)]
"""An output file."""

OutFolder = Annotated[Path, tyro.conf.arg(metavar="DIR"), PathKind(None, folder=True)]
"""An output folder."""

RunPath = Annotated[Path, tyro.conf.arg(metavar="RUN"), PathKind(check_run_path, folder=True)]
"""An input run folder."""

NewRun = Annotated[Path, tyro.conf.arg(metavar="RUN"), PathKind(None, folder=True)]
"""An output run folder."""

DataPath = Annotated[Path, tyro.conf.arg(metavar="DATA"), PathKind(check_data_path, folder=True)]
"""A data set."""

OptionalDataPath = Annotated[
    Path | None, tyro.conf.arg(metavar="DATA"), PathKind(check_data_path, folder=True)
]
"""An optional data set."""

OptionalRunPath = Annotated[Path | None, tyro.conf.arg(metavar="RUN"), PathKind(check_run_path, folder=True)]
"""An optional input run folder."""

OptionalOutFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE"), PathKind(None)]
"""An optional output file."""

OptionalOutFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR"), PathKind(None, folder=True)]
"""An optional output folder."""

WeightsPath = Annotated[Path | None, tyro.conf.arg(metavar="FILE"), PathKind(check_weights_path)]
"""Optional weights of a network: a safetensors file or a run folder."""

InputFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE"), PathKind(check_file)]
"""An optional input file."""

InputFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR"), PathKind(check_folder, folder=True)]
"""An optional input folder."""


def check_paths(flags: object, table: Sequence[Flag]) -> None:
    """Check every path of a command line.

    Args:
        flags: the parsed dataclass.
        table: its flags. Paths in options dataclasses are input files.

    Raises:
        UserError: a path is invalid; it names the first one.
    """
    for flag in table:
        if flag.path is None:
            continue
        check = flag.path.check if len(flag.field) == 1 else check_file
        value: object = flags
        for name in flag.field:
            value = getattr(value, name)
        values = cast("tuple[Path, ...]", value) if flag.several else (cast("Path | None", value),)
        for path in values:
            if check is not None and path is not None:
                check(path)


def _exists(path: Path | str, expected: str) -> bool:
    try:
        return os.path.lexists(path) and (Path(path).exists() or os.path.islink(path))
    except (OSError, ValueError) as error:
        _reraise(path, expected, error)


def _reraise(where: object, expected: str, error: OSError | ValueError) -> NoReturn:
    if isinstance(error, UserError):
        raise error
    raise UserError(where, expected, getattr(error, "strerror", None) or error) from error

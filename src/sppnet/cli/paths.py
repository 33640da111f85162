"""Checks of paths and extras that need no heavy import, so that a mistake is reported at once."""

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

_HINT = "Name a folder that `sppnet fit` wrote."


def check_run_path(run: Path) -> None:
    """Refuse what is clearly no run; `sppnet.runs` checks the rest.

    Raises:
        UserError: no such folder, a file, or a folder without ``model.json``.
    """
    try:
        if not run.exists():
            raise UserError(run, "a run", "no such folder", _HINT)
        if not run.is_dir():
            raise UserError(run, "a run, which is a folder", "a file", _HINT)
        if not (run / "model.json").exists():
            raise UserError(run, "a run", "a folder without model.json", _HINT)
    except (OSError, ValueError) as error:
        _reraise(run, "a run", error)


def check_data_path(data: Path) -> None:
    """Refuse a data set that does not exist.

    Raises:
        UserError: no such folder or file.
    """
    if not _exists(data, "a folder of labelled images"):
        raise UserError(data, "a folder of labelled images", "no such folder")


def check_weights_path(path: Path) -> None:
    """Refuse weights that do not exist, as a file or as a run folder.

    Raises:
        UserError: no such file or folder.
    """
    wanted = "a .safetensors file"
    if not _exists(path, wanted):
        raise UserError(path, wanted, "no such file")


def check_file(path: Path) -> None:
    """Refuse an input file that does not exist.

    Raises:
        UserError: no such file.
    """
    if not _exists(path, "a file"):
        raise UserError(path, "a file", "no such file")


def check_folder(path: Path) -> None:
    """Refuse an input folder that does not exist.

    Raises:
        UserError: no such folder, or a file.
    """
    if not _exists(path, "a folder"):
        raise UserError(path, "a folder", "no such folder")
    if not path.is_dir():
        raise UserError(path, "a folder", "a file")


def check_sources(sources: Sequence[str]) -> None:
    """Refuse sources that do not exist, and videos without the package that reads them.

    Raises:
        UserError: no such file or folder, or a glob without matches.
        MissingExtraError: a video or a camera, and PyAV is not installed.
    """
    for source in sources:
        if is_camera(source) or is_url(source):
            continue
        wanted = "an image, a folder or a glob"
        if _exists(source, wanted):
            continue
        if not glob.has_magic(source):
            raise UserError(source, wanted, "no such file or folder")
        if next(expand_glob(source), None) is None:
            raise UserError(source, wanted, "no match")
    if any(map(is_video, sources)):
        check_extra("av", "video", "videos and cameras")


def check_extra(package: str, extra: str, job: str) -> None:
    """Refuse work that needs an optional package, without importing it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # blocked, or half removed
        found = None
    if found is None:
        raise MissingExtraError(package, extra, job)


OutFile = Annotated[Path, tyro.conf.arg(metavar="FILE"), PathKind(None)]
"""A file that is written."""

OutFolder = Annotated[Path, tyro.conf.arg(metavar="DIR"), PathKind(None, folder=True)]
"""A folder that is written."""

RunPath = Annotated[Path, tyro.conf.arg(metavar="RUN"), PathKind(check_run_path, folder=True)]
"""A run folder that is read."""

NewRun = Annotated[Path, tyro.conf.arg(metavar="RUN"), PathKind(None, folder=True)]
"""A run folder that is written."""

DataPath = Annotated[Path, tyro.conf.arg(metavar="DATA"), PathKind(check_data_path, folder=True)]
"""A data set."""

OptionalDataPath = Annotated[
    Path | None, tyro.conf.arg(metavar="DATA"), PathKind(check_data_path, folder=True)
]
"""A data set that may be left out."""

OptionalRunPath = Annotated[Path | None, tyro.conf.arg(metavar="RUN"), PathKind(check_run_path, folder=True)]
"""A run folder that may be left out."""

OptionalOutFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE"), PathKind(None)]
"""A file that is written where it is named."""

OptionalOutFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR"), PathKind(None, folder=True)]
"""A folder that is written where it is named."""

WeightsPath = Annotated[Path | None, tyro.conf.arg(metavar="FILE"), PathKind(check_weights_path)]
"""Weights of a network: a safetensors file or a run folder."""

InputFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE"), PathKind(check_file)]
"""A file that is read."""

InputFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR"), PathKind(check_folder, folder=True)]
"""A folder that is read."""


def check_paths(flags: object, table: Sequence[Flag]) -> None:
    """Check every path of a command line.

    Args:
        flags: the dataclass that was filled in.
        table: its flags. A path of an options dataclass is a file that is read.

    Raises:
        UserError: the first path at fault.
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


def _exists(path: Path | str, wanted: str) -> bool:
    try:
        return os.path.lexists(path) and (Path(path).exists() or os.path.islink(path))
    except (OSError, ValueError) as error:
        _reraise(path, wanted, error)


def _reraise(where: object, wanted: str, error: OSError | ValueError) -> NoReturn:
    if isinstance(error, UserError):
        raise error
    raise UserError(where, wanted, getattr(error, "strerror", None) or error) from error

"""The run folder: the fitted tensors, the parameters and the measured figures, as text and safetensors.

::

    config.toml        the arguments of the estimator; `sppnet fit --config` accepts it
    model.json         format, package version, kind, class names, backbone, checksums of the files below
    model.safetensors  every fitted tensor
    metrics.json       the latest evaluation
    report.html        the latest evaluation as a page
    log.jsonl          one line per completed command or epoch

A run changes only when ``model.json`` changes. The tensors and the configuration of a new run are first
written under names that contain their checksums (``.run-CHECKSUM.safetensors``); then ``model.json`` is
renamed to its final name; then the two files are. A reader finds a file by its checksum, under either name,
so after a kill at any instant the folder holds the old run or the new one, whole. The next writer finishes
an interrupted write.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sppnet._run_reading import (
    CONFIG,
    FORMAT,
    MODEL,
    TENSORS,
    RunContents,
    digest_of,
    read_config,
    read_model,
    read_tensors,
)
from sppnet._run_writing import LOG, METRICS, REPORT, is_left_over, json_text, settle, stage, write_model
from sppnet.errors import UserError
from sppnet.files import append_line, write_text
from sppnet.locks import locked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FORMAT",
    "RunContents",
    "append_log",
    "check_out",
    "describe_run",
    "json_text",
    "load_run",
    "lock_run",
    "run_kind",
    "save_run",
    "write_metrics",
]

_CHECKPOINT, _BOARD = "checkpoint.safetensors", "tensorboard"
_FILES = {CONFIG, MODEL, TENSORS, METRICS, REPORT, LOG, _CHECKPOINT, _BOARD}
_FITTED = {MODEL, TENSORS, _CHECKPOINT}
"""A folder with one of these files holds the result of a fit, which only ``overwrite`` replaces."""


def check_out(folder: Path | str, *, overwrite: bool = False) -> Path:
    """Check that a run may be written to a folder, before the work of fitting.

    The folder may be missing, empty or hold only temporary files of a killed writer. With ``overwrite`` it
    may hold a run.

    Returns:
        ``folder`` as a path.

    Raises:
        UserError: the folder is a file, holds a run and ``overwrite`` is False, or holds other files.

    Examples:
        >>> check_out("a-new-folder").name
        'a-new-folder'
    """
    folder = Path(folder)
    expected = "a new or empty folder for the run"
    try:
        if not os.path.lexists(folder):
            return folder
        if not folder.is_dir():
            raise UserError(folder, "a folder for the run", "a file")
        names = {entry.name for entry in folder.iterdir() if not is_left_over(entry.name)}
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(folder, "a folder that can be read", error) from error
    if MODEL not in names and not names <= _FILES:
        raise UserError(folder, expected, "a folder that holds other files")
    if names & _FITTED and not overwrite:
        hint = "Name another folder, or pass overwrite (--overwrite)."
        if _CHECKPOINT in names:
            hint = "Name another folder, continue it (--resume), or pass overwrite (--overwrite)."
        raise UserError(folder, expected, "a run", hint)
    return folder


@contextmanager
def lock_run(folder: Path | str, *, overwrite: bool = False) -> Generator[Path]:
    """Reserve a folder for a run during the block, and finish or remove what a killed writer left in it.

    A missing folder is made first, so that a folder that cannot be written is reported before the work. It
    is removed again if nothing was written into it.

    Yields:
        ``folder`` as a path.

    Raises:
        UserError: `check_out` refuses the folder, it cannot be written, or another process writes to it.

    Examples:
        >>> with lock_run(getfixture("tmp_path") / "run") as folder:
        ...     folder.is_dir()
        True
    """
    folder = check_out(folder, overwrite=overwrite)
    with locked(folder, create=True):
        folder = check_out(folder, overwrite=overwrite)
        settle(folder)
        yield folder


def save_run(
    folder: Path | str,
    kind: str,
    config: Mapping[str, object],
    tensors: Mapping[str, Tensor],
    model: Mapping[str, object],
    *,
    overwrite: bool = False,
    keep_log: bool = False,
) -> Path:
    """Write a run; an existing run stays whole until the new one is.

    Args:
        folder: the run folder; see `check_out`. Replacing a run removes its metrics, report and log. Files
            that do not belong to a run stay.
        kind: the kind of the estimator.
        config: the estimator's arguments as a TOML table (`sppnet.config.as_config`).
        tensors: every fitted tensor, of any dtype and on any device.
        model: class names, backbone and heads, in JSON types.
        overwrite: replace an existing run.
        keep_log: keep ``log.jsonl``, because the run is a later state of the existing one.

    Returns:
        ``folder`` as a path.

    Raises:
        UserError: `check_out` refuses the folder, it cannot be made or written, or another process writes
            to it.

    Examples:
        >>> from torch import zeros
        >>> folder = getfixture("tmp_path") / "run"
        >>> _ = save_run(folder, "classifier", {"seed": 0}, {"bias": zeros(2)}, {"names": ["cat", "dog"]})
        >>> load_run(folder).config
        {'seed': 0}
    """
    with lock_run(folder, overwrite=overwrite) as folder:
        try:
            digests = stage(folder, config, tensors)
            described = {"format": FORMAT, "package": _package_version(), "kind": kind, "files": digests}
            write_model(folder, {**described, "keeps_log": keep_log, **model})
        finally:
            settle(folder)
    return folder


def describe_run(folder: Path | str, model: Mapping[str, object]) -> None:
    """Replace entries of a run's ``model.json``; the tensors and the configuration stay.

    Args:
        folder: the run folder.
        model: the new entries.

    Raises:
        UserError: the folder is not a run of a known format, or cannot be written.

    Examples:
        >>> folder = save_run(getfixture("tmp_path") / "run", "classifier", {}, {}, {"names": ["cat"]})
        >>> describe_run(folder, {"names": ["dog"]})
        >>> load_run(folder).model["names"]
        ['dog']
    """
    with locked(folder):
        write_model(Path(folder), {**read_model(Path(folder)), **model})


def run_kind(folder: Path | str) -> str:
    """Return the kind of estimator that wrote a run; reads ``model.json`` only.

    Raises:
        UserError: the folder is not a run, or is a run of an unknown format.

    Examples:
        >>> run_kind(save_run(getfixture("tmp_path") / "run", "classifier", {}, {}, {}))
        'classifier'
    """
    return cast("str", read_model(Path(folder))["kind"])


def load_run(folder: Path | str, kind: str | None = None) -> RunContents:
    """Read a run; if the run is replaced meanwhile, the result is the old run or the new one.

    Args:
        folder: a folder that `save_run` wrote.
        kind: the expected kind of estimator; None accepts any.

    Returns:
        The contents of the folder.

    Raises:
        UserError: the folder is not a run, is of an unknown format or of another kind, or a file of it is
            missing or damaged.

    Examples:
        >>> load_run(save_run(getfixture("tmp_path") / "run", "classifier", {}, {}, {})).kind
        'classifier'
    """
    folder = Path(folder)
    model = read_model(folder)
    while True:
        found = cast("str", model["kind"])
        if kind is not None and found != kind:
            raise UserError(folder, f"a run of kind {kind}", f"a run of kind {found}")
        try:
            config = read_config(folder, digest_of(model, CONFIG))
            tensors = read_tensors(folder, digest_of(model, TENSORS))
            return RunContents(folder, found, config, tensors, model)
        except UserError:
            before, model = model, read_model(folder)
            if model == before:
                raise


def write_metrics(folder: Path | str, metrics: Mapping[str, object]) -> Path:
    """Write the latest evaluation to ``metrics.json``; non-finite numbers become null.

    Args:
        folder: the run folder.
        metrics: metrics by name.

    Returns:
        The path of the file.

    Raises:
        UserError: the file cannot be written, or another process writes to the run.

    Examples:
        >>> write_metrics(getfixture("tmp_path"), {"AP50": 0.5}).name
        'metrics.json'
    """
    path = Path(folder) / METRICS
    with locked(folder):
        settle(Path(folder))
        write_text(path, json_text(metrics))
    return path


def append_log(folder: Path | str, record: Mapping[str, object]) -> None:
    """Add one line to ``log.jsonl``: the time (UTC, ISO 8601) and the record.

    Args:
        folder: the run folder.
        record: the values of the line.

    Raises:
        UserError: the file cannot be written, or another process writes to the run.

    Examples:
        >>> folder = getfixture("tmp_path")
        >>> append_log(folder, {"verb": "fit"})
        >>> (folder / "log.jsonl").read_text().count("fit")
        1
    """
    line = json_text({"time": datetime.now(UTC).isoformat(timespec="seconds"), **record}, indent=None)
    with locked(folder):
        append_line(Path(folder) / LOG, line)


def _package_version() -> str:
    from importlib.metadata import version

    return version("sppnet")

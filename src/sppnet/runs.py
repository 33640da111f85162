"""The run folder: what fitting learned, how, and how good it is. It holds text and tensors, no pickle.

::

    config.toml        the arguments of the estimator; `sppnet fit --config` takes it back
    model.json         format, package version, kind, class names, backbone, heads
    model.safetensors  every learned tensor
    metrics.json       the latest evaluation
    report.html        the same for the eye
    log.jsonl          one line for each thing that was done

Every file is written beside its place and renamed. ``model.json`` goes first when a run is replaced
and comes last when one is written, so a folder with a ``model.json`` is a whole run.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast, get_args

import tomli_w
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sppnet.config import read_toml
from sppnet.errors import UserError

__all__ = [
    "FORMAT",
    "Kind",
    "RunContents",
    "append_log",
    "check_out",
    "json_text",
    "load_run",
    "replace_text",
    "run_kind",
    "save_run",
    "write_metrics",
]

Kind = Literal["detector", "classifier", "network", "paper-detector"]

FORMAT = 1
"""The version of the layout above; a run of another version is refused."""

_CONFIG, _MODEL, _TENSORS = "config.toml", "model.json", "model.safetensors"
_METRICS, _LOG = "metrics.json", "log.jsonl"
_REPORT = "report.html"
_FILES = (_CONFIG, _MODEL, _TENSORS, _METRICS, _REPORT, _LOG)


@dataclass(frozen=True)
class RunContents:
    """What a run folder holds.

    Attributes:
        folder: where it was read from.
        kind: which estimator wrote it.
        config: the estimator's arguments, as ``config.toml`` has them.
        tensors: the learned tensors, on the CPU.
        model: class names, backbone and heads, as the estimator described them.
    """

    folder: Path
    kind: Kind
    config: dict[str, object]
    tensors: dict[str, Tensor]
    model: dict[str, object]


def check_out(folder: Path | str, *, overwrite: bool = False) -> Path:
    """Say whether a run may be written to ``folder``, before any work is done for it.

    It may when the folder does not exist or is empty, or, with ``overwrite``, when it holds a run.

    Raises:
        UserError: the folder is a file, holds a run and ``overwrite`` is False, or holds other things.
    """
    folder = Path(folder)
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise UserError(folder, "a folder for the run", "a file")
    there = {entry.name.removesuffix(".part") for entry in folder.iterdir()}
    if not there:
        return folder
    if _MODEL not in there and not there <= set(_FILES):
        raise UserError(folder, "a new or empty folder for the run", "a folder that holds other things")
    if not overwrite:
        raise UserError(
            folder,
            "a new or empty folder for the run",
            "a run",
            "Name another folder, or pass overwrite (--overwrite).",
        )
    return folder


def save_run(
    folder: Path | str,
    kind: Kind,
    config: Mapping[str, object],
    tensors: Mapping[str, Tensor],
    model: Mapping[str, object],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a run.

    Args:
        folder: where to; see `check_out`. When a run is replaced, its metrics, report and log go with
            it, and files that are no part of a run stay.
        kind: which estimator it is.
        config: the estimator's arguments as a TOML table (`sppnet.config.as_config`).
        tensors: every learned tensor, any dtype and device.
        model: class names, backbone and heads in JSON's types.
        overwrite: replace the run that is there.

    Returns:
        ``folder`` as a path.

    Raises:
        UserError: what `check_out` refuses, or a folder that cannot be made or written.
    """
    folder = check_out(folder, overwrite=overwrite)
    described = {"format": FORMAT, "package": _package_version(), "kind": kind, **model}
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_MODEL, _METRICS, _REPORT, _LOG):
            (folder / name).unlink(missing_ok=True)
        _replace(folder / _TENSORS, lambda part: _write_tensors(plain, part))
        replace_text(folder / _CONFIG, tomli_w.dumps(config))
        replace_text(folder / _MODEL, json_text(described))
    except OSError as error:
        raise UserError(folder, "a folder that can be written", error.strerror or error) from error
    return folder


def run_kind(folder: Path | str) -> Kind:
    """Which estimator wrote the run in ``folder``; reads ``model.json`` only.

    Raises:
        UserError: the folder is no run, or a run of another format version.
    """
    return cast("Kind", _read_model(Path(folder))["kind"])


def load_run(folder: Path | str, kind: Kind | None = None) -> RunContents:
    """Read a run.

    Args:
        folder: a folder that `save_run` wrote.
        kind: the estimator that asks; a run of the other kind is refused.

    Raises:
        UserError: the folder is no run, of another format version or kind, or a file of it is missing
            or damaged.
    """
    folder = Path(folder)
    model = _read_model(folder)
    found = cast("Kind", model["kind"])
    if kind is not None and found != kind:
        raise UserError(folder, f"a run of a {kind}", f"a run of a {found}")
    tensors = folder / _TENSORS
    try:
        read = load_file(tensors)
    except FileNotFoundError:
        raise UserError(tensors, "the tensors of the run", "no such file", "Fit again.") from None
    except (OSError, SafetensorError) as error:
        raise UserError(
            tensors, "the tensors of the run", f"a damaged file ({error})", "Fit again."
        ) from error
    return RunContents(folder, found, read_toml(folder / _CONFIG), read, model)


def write_metrics(folder: Path | str, metrics: Mapping[str, object]) -> Path:
    """Write the latest evaluation to ``metrics.json``; numbers that are not finite become null.

    Returns:
        The path of the file.
    """
    path = Path(folder) / _METRICS
    replace_text(path, json_text(metrics))
    return path


def append_log(folder: Path | str, record: Mapping[str, object]) -> None:
    """Add one line to ``log.jsonl``: the time (UTC, ISO 8601) and ``record``."""
    line = json_text({"time": datetime.now(UTC).isoformat(timespec="seconds"), **record}, indent=None)
    with (Path(folder) / _LOG).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a text file beside its place and rename it: a reader sees the old one or the new one, whole."""
    _replace(path, lambda part: part.write_text(text, encoding="utf-8"))


def json_text(value: object, indent: int | None = 2) -> str:
    """``value`` as JSON: paths as text, tensors and arrays as lists, numbers that are not finite as null."""
    return json.dumps(_jsonable(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _jsonable(value: object) -> object:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in cast("list[object]", value)]
    listed = getattr(value, "tolist", None)
    assert callable(listed), f"{type(value).__name__} has no place in JSON"
    return _jsonable(listed())


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    # save_file makes files that only their owner may read; a run is as open as its folder's other files.
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path)
    path.chmod(mode)


def _package_version() -> str:
    from importlib.metadata import version

    return version("sppnet")


def _read_model(folder: Path) -> dict[str, object]:
    todo = "Name a folder that `sppnet fit` wrote."
    path = folder / _MODEL
    if not folder.exists():
        raise UserError(folder, "a run", "no such folder", todo)
    if not folder.is_dir():
        raise UserError(folder, "a run, which is a folder", "a file", todo)
    if not path.exists():
        raise UserError(folder, "a run", f"a folder without {_MODEL}", todo)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            path, "the description of a run", f"a damaged file ({error})", "Fit again."
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(path, "the description of a run", "other JSON", todo)
    model = cast("dict[str, object]", content)
    if model["format"] != FORMAT:
        raise UserError(
            folder,
            f"a run of format {FORMAT}",
            f"format {model['format']}, written by sppnet {model.get('package', 'of unknown version')}",
            "Fit again, or use that version.",
        )
    if model.get("kind") not in get_args(Kind):
        raise UserError(path, "a run of a detector, a classifier or a network", f"kind {model.get('kind')!r}")
    return model

"""The run folder: what fitting learned, how, and how good it is. It holds text and tensors, no pickle.

::

    config.toml        the arguments of the estimator; `sppnet fit --config` takes it back
    model.json         format, package version, kind, class names, backbone, checksums of the files below
    model.safetensors  every learned tensor
    metrics.json       the latest evaluation
    report.html        the same for the eye
    log.jsonl          one line for each thing that was done

``model.json`` is the one point at which a run changes. A new run's tensors and configuration are first
written under names that their checksums give (``.run-CHECKSUM.safetensors``); then ``model.json`` is renamed
into place; then the two files take their own names. A reader takes a file by its checksum, under whichever
of the two names it lies, so after a kill at any instant the folder holds the old run or the new one, whole.
The next writer finishes what a killed one began.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import tomli_w
from safetensors import SafetensorError

from sppnet.config import parse_toml
from sppnet.errors import UserError
from sppnet.files import append_line, is_temporary, remove, rename, write_tensors, write_text
from sppnet.locks import LOCK, locked

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

FORMAT = 2
"""The version of the layout above. Runs of format 1, which has no checksums, are read too."""

_CONFIG, _MODEL, _TENSORS = "config.toml", "model.json", "model.safetensors"
_METRICS, _LOG = "metrics.json", "log.jsonl"
_REPORT = "report.html"
_CHECKPOINT, _BOARD = "checkpoint.safetensors", "tensorboard"
_FILES = {_CONFIG, _MODEL, _TENSORS, _METRICS, _REPORT, _LOG, _CHECKPOINT, _BOARD}
_LEARNED = {_MODEL, _TENSORS, _CHECKPOINT}
"""A folder with one of these holds something that took work to make."""
_STAGED = re.compile(r"\.run-(?:new|[0-9a-f]{32})\.(?:safetensors|toml)")
# What writers of format 1 and safetensors leave behind when they are killed.
_EARLIER = re.compile(
    r"(?:config\.toml|model\.json|model\.safetensors|metrics\.json)\.part|\.tmp[A-Za-z0-9]{6}"
)
_MOST_TEXT = 2**26


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
    kind: str
    config: dict[str, object]
    tensors: dict[str, Tensor]
    model: dict[str, object]


def check_out(folder: Path | str, *, overwrite: bool = False) -> Path:
    """Say whether a run may be written to ``folder``, before any work is done for it.

    It may when the folder does not exist, is empty or holds only what a killed writer left, or, with
    ``overwrite``, when it holds a run.

    Raises:
        UserError: the folder is a file, holds a run and ``overwrite`` is False, or holds other things.
    """
    folder = Path(folder)
    wanted = "a new or empty folder for the run"
    try:
        if not os.path.lexists(folder):
            return folder
        if not folder.is_dir():
            raise UserError(folder, "a folder for the run", "a file")
        there = {entry.name for entry in folder.iterdir() if not _is_left_over(entry.name)}
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(folder, "a folder that can be read", error) from error
    if _MODEL not in there and not there <= _FILES:
        raise UserError(folder, wanted, "a folder that holds other things")
    if there & _LEARNED and not overwrite:
        hint = "Name another folder, or pass overwrite (--overwrite)."
        if _CHECKPOINT in there:
            hint = "Name another folder, go on with it (--resume), or pass overwrite (--overwrite)."
        raise UserError(folder, wanted, "a run", hint)
    return folder


@contextmanager
def lock_run(folder: Path | str, *, overwrite: bool = False) -> Generator[Path]:
    """Reserve a folder for a run that is about to be made; what `check_out` refuses is refused at once.

    The folder is made where it is missing, so that one that cannot be written is found before the work,
    and removed again if nothing was written into it.

    Raises:
        UserError: what `check_out` refuses, a folder that cannot be written, or one that another process
            is writing to.
    """
    folder = check_out(folder, overwrite=overwrite)
    with locked(folder, create=True):
        yield check_out(folder, overwrite=overwrite)


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
    """Write a run; a run that is there stays whole until the new one is.

    Args:
        folder: where to; see `check_out`. When a run is replaced, its metrics, report and log go with
            it, and files that are no part of a run stay.
        kind: which estimator it is.
        config: the estimator's arguments as a TOML table (`sppnet.config.as_config`).
        tensors: every learned tensor, any dtype and device.
        model: class names, backbone and heads in JSON's types.
        overwrite: replace the run that is there.
        keep_log: keep ``log.jsonl``, as the run is a later state of the one that is there.

    Returns:
        ``folder`` as a path.

    Raises:
        UserError: what `check_out` refuses, a folder that cannot be made or written, or one that another
            process is writing to.
    """
    with lock_run(folder, overwrite=overwrite) as folder:
        _settle(folder)
        try:
            digests = _stage(folder, config, tensors)
            described = {"format": FORMAT, "package": _package_version(), "kind": kind, "files": digests}
            _write_model(folder, {**described, "keeps_log": keep_log, **model})
        finally:
            _settle(folder)
    return folder


def describe_run(folder: Path | str, model: Mapping[str, object]) -> None:
    """Replace entries of a run's ``model.json``; tensors and configuration stay.

    Raises:
        UserError: no run of the present format, or one that cannot be written.
    """
    with locked(folder):
        _write_model(Path(folder), {**_read_model(Path(folder)), **model})


def run_kind(folder: Path | str) -> str:
    """Which estimator wrote the run in ``folder``; reads ``model.json`` only.

    Raises:
        UserError: the folder is no run, or a run of another format version.
    """
    return cast("str", _read_model(Path(folder))["kind"])


def load_run(folder: Path | str, kind: str | None = None) -> RunContents:
    """Read a run; a run that is replaced meanwhile is read as it was before or after.

    Args:
        folder: a folder that `save_run` wrote.
        kind: the estimator that asks; a run of another kind is refused.

    Raises:
        UserError: the folder is no run, of another format version or kind, or a file of it is missing
            or damaged.
    """
    folder = Path(folder)
    model = _read_model(folder)
    while True:
        found = cast("str", model["kind"])
        if kind is not None and found != kind:
            raise UserError(folder, f"a run of a {kind}", f"a run of a {found}")
        try:
            config = _read_config(folder, _digest_of(model, _CONFIG))
            tensors = _read_tensors(folder, _digest_of(model, _TENSORS))
            return RunContents(folder, found, config, tensors, model)
        except UserError:
            before, model = model, _read_model(folder)
            if model == before:
                raise


def write_metrics(folder: Path | str, metrics: Mapping[str, object]) -> Path:
    """Write the latest evaluation to ``metrics.json``; numbers that are not finite become null.

    Returns:
        The path of the file.

    Raises:
        UserError: the file cannot be written, or another process is writing to the run.
    """
    path = Path(folder) / _METRICS
    with locked(folder):
        _settle(Path(folder))
        write_text(path, json_text(metrics))
    return path


def append_log(folder: Path | str, record: Mapping[str, object]) -> None:
    """Add one line to ``log.jsonl``: the time (UTC, ISO 8601) and ``record``.

    Raises:
        UserError: the file cannot be written, or another process is writing to the run.
    """
    line = json_text({"time": datetime.now(UTC).isoformat(timespec="seconds"), **record}, indent=None)
    with locked(folder):
        append_line(Path(folder) / _LOG, line)


def json_text(value: object, indent: int | None = 2) -> str:
    r"""``value`` as JSON: paths as text, tensors and arrays as lists, numbers that are not finite as null.

    What UTF-8 cannot hold, such as parts of file names in another encoding, is written as ``\udcXX``.
    """
    text = json.dumps(_jsonable(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()


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


def _package_version() -> str:
    from importlib.metadata import version

    return version("sppnet")


def _is_left_over(name: str) -> bool:
    """Whether a name is of the bookkeeping of writers, which none of them needs once it has ended."""
    return name == LOCK or is_temporary(name) or bool(_STAGED.fullmatch(name) or _EARLIER.fullmatch(name))


def _staged(folder: Path, name: str, digest: str) -> Path:
    """Where a file of a run lies until its ``model.json`` is there."""
    return folder / f".run-{digest[:32]}{Path(name).suffix}"


def _stage(folder: Path, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Write a run's files under their staged names; their checksums."""
    new = folder / ".run-new.safetensors"
    digest = write_tensors(new, tensors, durable=True)
    rename(new, _staged(folder, _TENSORS, digest))
    text = tomli_w.dumps(config)
    text_digest = hashlib.sha256(text.encode()).hexdigest()
    write_text(_staged(folder, _CONFIG, text_digest), text, durable=True)
    return {_TENSORS: digest, _CONFIG: text_digest}


def _settle(folder: Path) -> None:
    """Finish what a writer began, whether it was killed or is at its last step; the caller holds the lock.

    Staged files that ``model.json`` names take their places; all others, and temporary files, are removed.
    """
    try:
        model = _read_model(folder)
    except UserError:
        model = {}
    files = {name: _digest_of(model, name) for name in (_CONFIG, _TENSORS)}
    staged = {name: _staged(folder, name, digest) for name, digest in files.items() if digest}
    if any(path.exists() for path in staged.values()):
        for name in (_METRICS, _REPORT) if model.get("keeps_log") is True else (_METRICS, _REPORT, _LOG):
            remove(folder / name)
    for name, path in staged.items():
        if path.exists():
            rename(path, folder / name)
    for entry in sorted(folder.iterdir()):
        if entry.name != LOCK and _is_left_over(entry.name) and not entry.is_dir():
            remove(entry)


def _write_model(folder: Path, model: Mapping[str, object]) -> None:
    text = json_text({**model, "sha256": None})
    described = cast("dict[str, object]", json.loads(text))
    write_text(folder / _MODEL, json_text({**described, "sha256": _self_digest(described)}), durable=True)


def _self_digest(model: Mapping[str, object]) -> str:
    """The checksum of a description without its own checksum."""
    plain = {name: value for name, value in model.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _digest_of(model: Mapping[str, object], name: str) -> str:
    """The checksum of one of the run's files; empty for a run of format 1."""
    files = model.get("files")
    return cast("dict[str, str]", files)[name] if isinstance(files, dict) else ""


def _read_model(folder: Path) -> dict[str, object]:
    todo = "Name a folder that `sppnet fit` wrote."
    path = folder / _MODEL
    try:
        if not folder.exists():
            raise UserError(folder, "a run", "no such folder", todo)
        if not folder.is_dir():
            raise UserError(folder, "a run, which is a folder", "a file", todo)
        if not os.path.lexists(path):
            raise UserError(folder, "a run", f"a folder without {_MODEL}", todo)
    except OSError as error:
        raise UserError(folder, "a run", error.strerror or error, todo) from error
    content: object = None
    problem = ""
    try:
        content = json.loads(_read_text(path), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        problem = str(error) if isinstance(error, ValueError) else "nested too deeply"
    if problem:
        raise UserError(path, "the description of a run", f"a damaged file ({problem})", "Fit again.")
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(path, "the description of a run", "other JSON", todo)
    model = cast("dict[str, object]", content)
    _check_model(folder, path, model)
    return model


def _check_model(folder: Path, path: Path, model: dict[str, object]) -> None:
    """Format, kind and checksums."""
    version = model["format"]
    if isinstance(version, bool) or version not in (1, FORMAT):
        raise UserError(
            folder,
            f"a run of format 1 or {FORMAT}",
            f"format {_brief(version)}, written by sppnet {_brief(model.get('package', 'unknown'))}",
            "Fit again, or use that version.",
        )
    if not isinstance(model.get("kind"), str):
        raise UserError(path, "the kind of a run", f"kind {_brief(repr(model.get('kind')))}", "Fit again.")
    if version == 1:
        model.pop("files", None)
        return
    files = model.get("files")
    named = cast("dict[object, object]", files) if isinstance(files, dict) else {}
    for name in (_TENSORS, _CONFIG):
        digest = named.get(name)
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise UserError(path, f"the checksum of {name}", _brief(repr(digest)), "Fit again.")
    if model.get("sha256") != _self_digest(model):
        raise UserError(path, "the description that the run was saved with", "a changed file", "Fit again.")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


def _brief(value: object) -> str:
    """A value of a damaged file, short enough for a message."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _placed(folder: Path, name: str, digest: str) -> Path:
    """Where a file of the run lies: staged, where its writer has not come to the end, or in its place."""
    staged = _staged(folder, name, digest)
    return staged if digest and staged.is_file() else folder / name


def _read_config(folder: Path, digest: str) -> dict[str, object]:
    path = _placed(folder, _CONFIG, digest)
    text = _read_text(path)
    if digest and hashlib.sha256(text.encode()).hexdigest() != digest:
        raise UserError(path, "the configuration that the run was saved with", "a changed file", "Fit again.")
    return parse_toml(text, path)


def _read_tensors(folder: Path, digest: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # imports torch, which only reading a run needs

    path = _placed(folder, _TENSORS, digest)
    wanted = "the tensors of the run"
    try:
        _check_regular(path)
        with path.open("rb") as stream:
            if digest and hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                raise UserError(
                    path, "the tensors that the run was saved with", "a changed file", "Fit again."
                )
        return load_file(path)
    except FileNotFoundError:
        raise UserError(path, wanted, "no such file", "Fit again.") from None
    except UserError:
        raise
    # What safetensors raises for a header that it accepts and torch does not is undocumented.
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(path, wanted, f"a damaged file ({_brief(error)})", "Fit again.") from error


def _read_text(path: Path) -> str:
    try:
        _check_regular(path)
        with path.open("rb") as stream:
            content = stream.read(_MOST_TEXT + 1)
    except FileNotFoundError:
        raise UserError(path, "a file of the run", "no such file", "Fit again.") from None
    except OSError as error:
        raise UserError(path, "a file of the run", error.strerror or error, "Fit again.") from error
    if len(content) > _MOST_TEXT:
        raise UserError(path, f"at most {_MOST_TEXT} bytes", "more", "Fit again.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(path, "text in UTF-8", f"a damaged file ({error})", "Fit again.") from error


def _check_regular(path: Path) -> None:
    """Opening a pipe would wait for ever."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(0, "a folder" if stat.S_ISDIR(mode) else "no regular file")

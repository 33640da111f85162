"""Reading the files of a run folder, each checked against its checksum before it is used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from safetensors import SafetensorError

from sppnet.config import parse_toml
from sppnet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
"""The version of the layout that `sppnet.runs` writes. Format 1, without checksums, is read too."""
CONFIG, MODEL, TENSORS = "config.toml", "model.json", "model.safetensors"
_MOST_TEXT = 2**26  # bytes


@dataclass(frozen=True)
class RunContents:
    """The contents of a run folder.

    Attributes:
        folder: the folder that was read.
        kind: the kind of estimator that wrote it.
        config: the estimator's arguments, from ``config.toml``.
        tensors: the fitted tensors, on the CPU.
        model: class names, backbone and heads, from ``model.json``.

    Examples:
        >>> RunContents(Path("run"), "classifier", {"seed": 0}, {}, {"names": ["cat", "dog"]}).kind
        'classifier'
    """

    folder: Path
    kind: str
    config: dict[str, object]
    tensors: dict[str, Tensor]
    model: dict[str, object]


def staged_path(folder: Path, name: str, digest: str) -> Path:
    """Return the path of a run's file before its ``model.json`` is written."""
    return folder / f".run-{digest[:32]}{Path(name).suffix}"


def self_digest(model: Mapping[str, object]) -> str:
    """Return the checksum of a description without its own checksum."""
    plain = {name: value for name, value in model.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def digest_of(model: Mapping[str, object], name: str) -> str:
    """Return the checksum of one of the run's files; empty for a run of format 1."""
    files = model.get("files")
    return cast("dict[str, str]", files)[name] if isinstance(files, dict) else ""


def read_model(folder: Path) -> dict[str, object]:
    """Read and check a run's ``model.json``.

    Raises:
        UserError: the folder is not a run of a known format, or the file is damaged.
    """
    hint = "Name a folder that `sppnet fit` wrote."
    path = folder / MODEL
    try:
        if not folder.exists():
            raise UserError(folder, "a run", "no such folder", hint)
        if not folder.is_dir():
            raise UserError(folder, "a run, which is a folder", "a file", hint)
        if not os.path.lexists(path):
            raise UserError(folder, "a run", f"a folder without {MODEL}", hint)
    except OSError as error:
        raise UserError(folder, "a run", error.strerror or error, hint) from error
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
        raise UserError(path, "the description of a run", "other JSON", hint)
    model = cast("dict[str, object]", content)
    _check_model(folder, path, model)
    return model


def _check_model(folder: Path, path: Path, model: dict[str, object]) -> None:
    """Check format, kind and checksums."""
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
    for name in (TENSORS, CONFIG):
        digest = named.get(name)
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise UserError(path, f"the checksum of {name}", _brief(repr(digest)), "Fit again.")
    if model.get("sha256") != self_digest(model):
        raise UserError(path, "the description that the run was saved with", "a changed file", "Fit again.")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _brief(value: object) -> str:
    """Return a value of a damaged file, short enough for a message."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _present_path(folder: Path, name: str, digest: str) -> Path:
    """Return a file's staged path where its writer has not finished, else its final path."""
    staged = staged_path(folder, name, digest)
    return staged if digest and staged.is_file() else folder / name


def read_config(folder: Path, digest: str) -> dict[str, object]:
    """Read a run's ``config.toml``.

    Raises:
        UserError: the file is missing, damaged or changed.
    """
    path = _present_path(folder, CONFIG, digest)
    text = _read_text(path)
    if digest and hashlib.sha256(text.encode()).hexdigest() != digest:
        raise UserError(path, "the configuration that the run was saved with", "a changed file", "Fit again.")
    return parse_toml(text, path)


def read_tensors(folder: Path, digest: str) -> dict[str, Tensor]:
    """Read a run's ``model.safetensors`` onto the CPU.

    Raises:
        UserError: the file is missing, damaged or changed.
    """
    from safetensors.torch import load_file

    path = _present_path(folder, TENSORS, digest)
    expected = "the tensors of the run"
    try:
        _check_regular(path)
        with path.open("rb") as stream:
            if digest and hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                raise UserError(
                    path, "the tensors that the run was saved with", "a changed file", "Fit again."
                )
        return load_file(path)
    except FileNotFoundError:
        raise UserError(path, expected, "no such file", "Fit again.") from None
    except UserError:
        raise
    # The exception for a header that safetensors accepts and torch does not is undocumented.
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(path, expected, f"a damaged file ({_brief(error)})", "Fit again.") from error


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
    """Refuse anything but a regular file; opening a pipe would block."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(0, "a folder" if stat.S_ISDIR(mode) else "not a regular file")

"""The targets of ``sppnet export``. A new target is one module and one line in `TARGETS`."""

from __future__ import annotations

import importlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from sppnet.data import ImageSource
from sppnet.errors import UserError
from sppnet.files import remove_temporaries, write_bytes
from sppnet.locks import locked_file


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        part: the whole estimator, its features of a whole image, or of given boxes.
        precision: of the network; targets without other precisions refuse them.
        calibration: images that set the ranges of ``int8``.
    """

    part: Literal["all", "features", "box-features"] = "all"
    precision: Literal["float32", "float16", "int8"] = "float32"
    calibration: Sequence[ImageSource] = field(default_factory=tuple)


class Target(Protocol):
    """Write a fitted estimator to a file."""

    def __call__(self, estimator: Any, path: Path, options: ExportOptions) -> Path:
        """Write the file and return its path.

        Raises:
            UserError: an estimator or options that the target cannot express, or an unwritable file.
        """
        ...


TARGETS: dict[str, str] = {
    "onnx": "sppnet.export.api:onnx_target",
    "torch": "sppnet.export.program:torch_target",
}
"""Module and function of each target, by its name in ``--format``; imported when needed."""


MARK = "sppnet"
"""The name of the extra file in a program of torch.export."""
_PRODUCER = b"\x12\x06sppnet"  # field 2 of a ModelProto, which precedes the graph


def find_target(name: str) -> Target:
    """Return the target of a name.

    Raises:
        UserError: no target has the name.

    Examples:
        >>> find_target("abacus")
        Traceback (most recent call last):
        sppnet.errors.UserError: format: expected one of onnx, torch, got 'abacus'
    """
    if name not in TARGETS:
        raise UserError("format", f"one of {', '.join(TARGETS)}", repr(name))
    module, _, function = TARGETS[name].partition(":")
    return cast("Target", getattr(importlib.import_module(module), function))


def check_target(path: Path, ending: str) -> None:
    """Check that an export with the suffix ``ending`` may be written to a path.

    Raises:
        UserError: the path has another suffix, or is a folder or a file that sppnet did not export.
    """
    if path.suffix.lower() != ending:
        raise UserError(path, f"a file that ends in {ending}", path.suffix or "no extension")
    if path.is_dir():
        raise UserError(path, "a file", "a folder")
    if os.path.lexists(path) and not _is_export(path):
        hint = "Remove it, or choose another name."
        raise UserError(path, "a new file, or one that sppnet exported", "another file", hint)


def _is_export(path: Path) -> bool:
    """Return whether sppnet exported a file, by the producer of an ONNX model or `MARK` in a program."""
    if not path.is_file():
        return False
    try:
        if path.suffix.lower() == ".onnx":
            with path.open("rb") as stream:
                return _PRODUCER in stream.read(64)
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/{MARK}") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def write_export(path: Path, content: bytes) -> Path:
    """Write an exported file; create its folder if necessary, and replace an earlier file.

    Raises:
        UserError: the file is not writable, or another process is writing it.
    """
    with locked_file(path):
        remove_temporaries(path.parent, [path.name])
        write_bytes(path, content)
    return path

"""The targets of ``sppnet export``. A new target is one module and one line in `TARGETS`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from sppnet.data import ImageSource
from sppnet.errors import UserError


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

"""Words of the command line to a dataclass; a TOML file gives the defaults where ``--config`` names one."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro

from sppnet.config import from_config, read_toml
from sppnet.errors import UserError, visible

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Flags = TypeVar("Flags", bound=DataclassInstance)
else:
    Flags = TypeVar("Flags")

__all__ = ["ConfigFile", "UsageError", "read_flags"]

ConfigFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE.toml")]
"""The type of a ``config`` flag."""


class UsageError(UserError):
    """Words on the command line that make no sense to ``command``."""

    def __init__(self, command: str, problem: str) -> None:
        super().__init__(command, "what --help tells", problem, f"See {command} --help.")

    def __str__(self) -> str:
        return visible(" ".join(f"{self.got.rstrip('.')}. {self.hint}".split()))


def read_flags(kind: type[Flags], command: str, words: Sequence[str]) -> Flags:
    """The dataclass that ``words`` fill in.

    Args:
        kind: a documented dataclass; each field is a flag or, with ``tyro.conf.Positional``, a word.
        command: what help and errors call it, such as ``"sppnet fit detect"``.
        words: the command line after the command.

    Raises:
        UserError: words that do not fit, or a config file that does not.
        SystemExit: with 0, after printing the help that was asked for.
    """
    config = _config_file(words)
    default = None if config is None else from_config(kind, read_toml(config), config, missing=tyro.MISSING)
    markers = (tyro.conf.FlagCreatePairsOff,)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if default is None:
                return tyro.cli(kind, prog=command, args=list(words), config=markers)
            return tyro.cli(kind, prog=command, args=list(words), config=markers, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(command, _one_line(said.getvalue())) from None


def _config_file(words: Sequence[str]) -> Path | None:
    for i, word in enumerate(words):
        if word.startswith("--config="):
            return Path(word.removeprefix("--config="))
        if word == "--config" and i + 1 < len(words):
            return Path(words[i + 1])
    return None


def _one_line(box: str) -> str:
    """What a framed message of tyro's says, without frame, title and the pointers to the help."""
    said: list[str] = []
    for framed in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:]:
        # Where the terminal cannot show a frame's characters, it is made of | and -.
        line = re.sub(r"^[│|] ?| ?[│|]$", "", framed).rstrip()
        if line.strip().startswith(("For full helptext", "Argument helptext")):
            break
        # Rules have no letter; under the name of a flag stands its help, further in.
        if re.search(r"\w", line) and not line.startswith(" " * 8):
            said.append(line.strip())
    return " ".join(said).rstrip(".") or "unreadable flags"

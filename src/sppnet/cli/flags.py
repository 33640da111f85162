"""Parsing of the command line into a dataclass, with defaults from the TOML file of ``--config``."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import tyro

from sppnet.cli.flag_table import PathKind, flag_table
from sppnet.cli.help_text import help_text
from sppnet.cli.paths import check_file, check_paths
from sppnet.config import from_config, read_toml
from sppnet.errors import UserError, visible

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Flags = TypeVar("Flags", bound=DataclassInstance)
else:
    Flags = TypeVar("Flags")

__all__ = ["ConfigFile", "UsageError", "flag_path", "flag_value", "read_flags"]

ConfigFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE.toml"), PathKind(check_file)]
"""The type of a ``config`` flag."""


class UsageError(UserError):
    """Invalid arguments of a command."""

    def __init__(self, command: str, problem: str) -> None:
        super().__init__(command, "the arguments in its help", problem, f"See {command} --help.")

    def __str__(self) -> str:
        return visible(" ".join(f"{self.got.rstrip('.')}. {self.hint}".split()))


def read_flags(
    kind: type[Flags], command: str, words: Sequence[str], base: Mapping[str, object] | None = None
) -> Flags:
    """Parse a command line into a dataclass and validate its paths, or print the help.

    Args:
        kind: a documented dataclass; each field is a flag or, with ``tyro.conf.Positional``, a word.
        command: name of the command, such as ``"sppnet fit detect"``, for help and error messages.
        words: the command line after the command.
        base: values that replace the defaults of the dataclass; a config file takes precedence.

    Returns:
        An instance of the dataclass.

    Raises:
        UserError: arguments, the config file or a path are invalid.
        SystemExit: with code 0, after printing the help.
    """
    if asked := {"-h", "--help", "--help-all"}.intersection(words):
        print(help_text(kind, command, whole="--help-all" in asked, defaults=base))
        raise SystemExit(0)
    for before, word in pairwise(["", *words]):
        # An empty path would be the current folder, as in --out "$OUT" if the variable is not set.
        if before.startswith("--") and not word:
            raise UsageError(command, f"{before} expects a value, got an empty string")
        if word.startswith("--") and word.endswith("="):
            raise UsageError(command, f"{word[:-1]} expects a value, got an empty string")
    flags = _parsed(kind, command, words, base)
    check_paths(flags, flag_table(kind))
    return flags


def _parsed(
    kind: type[Flags], command: str, words: Sequence[str], base: Mapping[str, object] | None
) -> Flags:
    config = flag_path(words, "config")
    table = _merged(base or {}, {} if config is None else read_toml(config))
    default = from_config(kind, table, config or command, missing=tyro.MISSING) if table else None
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
        raise _mistake(kind, command, _one_line(said.getvalue())) from None


def _mistake(kind: type, command: str, message: str) -> UserError:
    """Convert a message of tyro to an error; choices are listed in the order of their declaration."""
    if wrong := re.match(r"invalid choice '(.*)' for argument '(--[\w.-]+)'", message):
        for flag in flag_table(kind):
            if wrong[2] in (flag.name, *flag.aliases) and flag.choices:
                hint = f"See {command} --help."
                return UserError(wrong[2], "one of " + ", ".join(flag.choices), repr(wrong[1]), hint)
    return UsageError(command, message)


def flag_value(words: Sequence[str], name: str) -> str | None:
    """Return the value of ``--name`` in an unparsed command line; None if it is absent."""
    for i, word in enumerate(words):
        if word.startswith(f"--{name}="):
            return word.removeprefix(f"--{name}=")
        if word == f"--{name}" and i + 1 < len(words):
            return words[i + 1]
    return None


def flag_path(words: Sequence[str], name: str) -> Path | None:
    """Return `flag_value` as a path."""
    value = flag_value(words, name)
    return None if value is None else Path(value)


def _merged(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Return ``base`` with the values of ``over``, tables merged entry by entry."""
    merged = dict(base)
    for name, value in over.items():
        known = merged.get(name)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            value = _merged(cast("Mapping[str, object]", known), cast("Mapping[str, object]", value))
        merged[name] = value
    return merged


def _one_line(box: str) -> str:
    """Extract a message of tyro from its frame, without title and references to the help."""
    said: list[str] = []
    for framed in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:]:
        # The frame consists of | and - if the terminal does not support its characters.
        line = re.sub(r"^[│|] ?| ?[│|]$", "", framed).rstrip()
        if line.strip().startswith(("For full helptext", "Argument helptext")):
            break
        # Horizontal rules have no letters; the help of a flag is indented below its name.
        if re.search(r"\w", line) and not line.startswith(" " * 8):
            said.append(line.strip())
    return " ".join(said).rstrip(".") or "unreadable flags"

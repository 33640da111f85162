"""The help of a command: one screen of flags, or all flags."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from sppnet.cli.flag_table import Flag, described, flag_table

__all__ = ["help_text"]

_WIDEST, _COLUMN = 100, 26


def help_text(
    kind: type, command: str, *, whole: bool = False, defaults: Mapping[str, object] | None = None
) -> str:
    """Format the help of a command.

    Args:
        kind: its dataclass of flags.
        command: name of the command, such as ``"sppnet fit detect"``.
        whole: include advanced flags.
        defaults: values that replace the defaults of the dataclass.
    """
    width = min(shutil.get_terminal_size((_WIDEST, 40)).columns, _WIDEST)
    flags = flag_table(kind, defaults)
    needed = [flag for flag in flags if flag.default is dataclasses.MISSING]
    usage = [
        *(flag.name for flag in needed if flag.positional),
        *(f"{flag.name} {flag.metavar}" for flag in needed if not flag.positional),
    ]
    head = textwrap.fill(f"usage: {' '.join([command, *usage])} [flags]", width, subsequent_indent="  ")
    paragraphs = [
        textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False)
        for text in described(kind).split("\n\n")
    ]
    hidden = sum(flag.advanced for flag in flags)
    shown = [flag for flag in flags if whole or not flag.advanced]
    lines = [head, "", "\n\n".join(paragraphs), "", *_sections(shown, width, titled=whole)]
    if hidden and not whole:
        lines += ["", f"{command} --help-all lists {hidden} further flags."]
    return "\n".join(lines)


def _sections(flags: Sequence[Flag], width: int, *, titled: bool) -> list[str]:
    lines: list[str] = []
    for group in dict.fromkeys(flag.group for flag in flags):
        if titled and group:
            lines += ["", f"{group}:"]
        for flag in flags:
            if flag.group == group:
                lines += _lines(flag, width)
    return lines


def _lines(flag: Flag, width: int) -> list[str]:
    left = "  " + (flag.name if flag.positional else f"{flag.name} {flag.metavar}".rstrip())
    text = _sentence(flag)
    body = textwrap.wrap(text, width - _COLUMN, break_on_hyphens=False) or [""]
    if len(left) > _COLUMN - 2:
        return [left, *(" " * _COLUMN + line for line in body)]
    first = f"{left:<{_COLUMN}}{body[0]}".rstrip()
    return [first, *(" " * _COLUMN + line for line in body[1:])]


def _sentence(flag: Flag) -> str:
    note = ""
    if flag.default is dataclasses.MISSING:
        note = "" if flag.positional else "required"
    elif flag.default is True:
        note = "on by default"
    elif flag.default is not None and flag.default is not False:
        value = _shown(flag.default)
        note = f"default: {value}" if value else ""
    text = flag.help.rstrip(".").replace("``", "").replace('"', "")
    return f"{text} ({note})" if note else text


def _shown(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return " ".join(map(_shown, cast("Sequence[object]", value)))
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value == "none" else str(Path(value) if isinstance(value, Path) else value)

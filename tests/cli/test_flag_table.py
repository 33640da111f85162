from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from sppnet.cli.commands import Command, all_commands
from sppnet.cli.flag_table import ADVANCED, Group, flag_table
from sppnet.cli.help_text import help_text
from sppnet.cli.shell import VERBS


@dataclass(frozen=True)
class Inner:
    """Options of the inside.

    Attributes:
        sides: sides in
            pixels.
        flip: flip images.
    """

    sides: tuple[int, ...] = (3, 1)
    flip: bool = True


@dataclass(frozen=True)
class Outer:
    """Do something.

    Attributes:
        data: a folder.
        kind: which one.
        seed: a seed.
        inner: options.
        other: more options.
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    kind: Literal["a", "b"] = "a"
    seed: Annotated[int | None, ADVANCED] = None
    inner: Annotated[Inner, tyro.conf.arg(name=""), Group("Inside", shown=("sides",))] = field(
        default_factory=Inner
    )
    other: Inner = field(default_factory=Inner)


def test_the_table_has_what_the_dataclass_says() -> None:
    table = {flag.name: flag for flag in flag_table(Outer)}
    assert list(table) == [
        "DATA",
        "--kind",
        "--seed",
        "--sides",
        "--no-flip",
        "--other.sides",
        "--other.no-flip",
    ]
    assert [flag.name for flag in table.values() if flag.advanced] == ["--seed", "--no-flip"]
    assert table["--kind"].choices == ("a", "b")
    assert (table["--sides"].help, table["--sides"].several) == ("sides in pixels.", True)
    assert table["--no-flip"].metavar == ""
    assert [flag.group for flag in table.values()][-4:] == [
        "Inside",
        "Inside",
        *["Options of the inside"] * 2,
    ]


def test_defaults_of_a_preset_are_shown() -> None:
    text = help_text(Outer, "sppnet test", whole=True, defaults={"inner": {"sides": [7]}})
    assert "--sides N ..." in text
    assert "sides in pixels (default: 7)" in text
    assert "sides in pixels (default: 3 1)" in text


def options_of_tyro(kind: type) -> set[str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        tyro.cli(kind, prog="x", args=["--help"], config=(tyro.conf.FlagCreatePairsOff,))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
    heads = re.findall(r"^[│| ] {0,2}((?:--?[a-zA-Z][\w.-]*(?:, )?)+)", plain, re.MULTILINE)
    return {name for head in heads for name in head.split(", ")} - {"-h", "--help"}


COMMANDS = [command for command in all_commands(VERBS) if command.flags is not None]


@pytest.mark.parametrize("kind", [Outer, *[command.flags for command in COMMANDS]])
def test_the_parser_takes_the_flags_of_the_table(kind: type) -> None:
    mine = [(flag.name, *flag.aliases) for flag in flag_table(kind) if not flag.positional]
    assert {name for names in mine for name in names} == options_of_tyro(kind)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_flags_of_a_group_that_are_shown_exist(command: Command) -> None:
    table = command.table()
    groups = [mark for mark in _groups(command.flags) if mark.shown]
    names = {flag.name.removeprefix("--") for flag in table}
    plain = names | {name.rpartition(".")[2] for name in names}
    assert [name for group in groups for name in group.shown or () if name not in plain] == []


def _groups(kind: type | None) -> list[Group]:
    import typing

    hints = typing.get_type_hints(kind, include_extras=True).values()
    return [mark for hint in hints for mark in typing.get_args(hint) if isinstance(mark, Group)]

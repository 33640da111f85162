"""The flags of a dataclass as a table for help, completion and path checks; `tyro` parses the words."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import tyro

from sppnet.config import as_config

__all__ = ["ADVANCED", "Flag", "Group", "PathKind", "flag_table"]

_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class _Advanced:
    """Mark of a flag that only ``--help-all`` shows."""


ADVANCED = _Advanced()
"""Annotation of a field: only ``--help-all`` shows the flag."""


@dataclass(frozen=True)
class Group:
    """Annotation of a field that is an options dataclass.

    Attributes:
        title: heading of its flags in ``--help-all``.
        shown: names of the flags that ``--help`` shows, without ``--``; the others are advanced. None shows
            all of them.
    """

    title: str
    shown: tuple[str, ...] | None = None


@dataclass(frozen=True)
class PathKind:
    """Annotation of a path: its validation before any work, and its completion.

    Attributes:
        check: function that raises `sppnet.errors.UserError` for an invalid path.
        folder: whether the path is a folder.
    """

    check: Callable[[Path], None] | None
    folder: bool = False


@dataclass(frozen=True)
class Flag:
    """A flag, or a positional argument.

    Attributes:
        name: name with ``--``; the metavar of a positional argument.
        field: attribute names from the dataclass to the value.
        metavar: placeholder of the value; empty for a switch.
        help: one or more sentences.
        default: default value; `dataclasses.MISSING` for a required flag.
        choices: the permitted values, if they are enumerated.
        aliases: other names.
        several: whether the flag accepts more than one value.
        path: validation of a path; None for other values.
        group: heading in ``--help-all``.
        advanced: whether ``--help`` omits the flag.
    """

    name: str
    field: tuple[str, ...]
    metavar: str
    help: str
    default: object
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    several: bool = False
    path: PathKind | None = None
    group: str = ""
    advanced: bool = False

    @property
    def positional(self) -> bool:
        """Whether the argument has no ``--``."""
        return not self.name.startswith("--")


@dataclass(frozen=True)
class _Context:
    """The position in a nested dataclass.

    Attributes:
        prefix: prefix of the names of flags.
        field: attribute names of the enclosing dataclasses.
        group: the group of the innermost options dataclass that has one.
    """

    prefix: str = ""
    field: tuple[str, ...] = ()
    group: Group | None = None


def flag_table(kind: type, defaults: Mapping[str, object] | None = None) -> list[Flag]:
    """List the flags of a dataclass with their names in ``tyro``, in the order of the fields.

    Args:
        kind: a documented dataclass of flags.
        defaults: values that replace the defaults of the dataclass, in the form of a TOML table.

    Examples:
        >>> from sppnet.cli.check import CheckFlags
        >>> [flag.name for flag in flag_table(CheckFlags)]
        ['--json']
    """
    return list(_flags(kind, defaults or {}, _Context()))


def described(kind: type) -> str:
    """Return the docstring of a dataclass without its attributes."""
    return (inspect.getdoc(kind) or "").partition("\nAttributes:")[0].strip()


def _flags(kind: type, defaults: Mapping[str, object], context: _Context) -> Iterator[Flag]:
    hints = typing.get_type_hints(kind, include_extras=True)
    helps = _helps(kind)
    for field in dataclasses.fields(cast("Any", kind)):
        if not field.init:
            continue
        hint, marks = _unwrapped(hints[field.name])
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            inner = defaults.get(field.name, {})
            plain = {**as_config(_made(field)), **cast("Mapping[str, object]", inner)}
            yield from _flags(hint, plain, _inner(context, field.name, marks, hint))
        else:
            given = defaults.get(field.name, _made(field))
            yield _flag(field.name, hint, marks, context, given, helps.get(field.name, ""))


def _inner(context: _Context, name: str, marks: tuple[object, ...], kind: type) -> _Context:
    argument = _argument(marks)
    own = name.replace("_", "-") if argument is None or argument.name is None else argument.name
    prefix = f"{context.prefix}{own}." if own else context.prefix
    group = next((mark for mark in marks if isinstance(mark, Group)), None)
    if group is None:
        title = described(kind).partition("\n")[0].rstrip(".")
        group = Group(title, None if context.group is None else context.group.shown)
    return _Context(prefix, (*context.field, name), group)


def _flag(
    name: str, hint: object, marks: tuple[object, ...], context: _Context, default: object, text: str
) -> Flag:
    argument = _argument(marks)
    scalar, several, choices = _value(hint)
    metavar = "|".join(choices) if choices else _METAVARS.get(cast("type", scalar), "")
    if argument is not None and argument.metavar is not None:
        metavar = argument.metavar
    elif several and metavar:
        metavar = f"{metavar} ..."
    flag = context.prefix + name.replace("_", "-")
    if scalar is bool:
        # FlagCreatePairsOff: a switch that is on by default has the flag --no-NAME.
        head, _, tail = flag.rpartition(".")
        flag = f"{head}.no-{tail}" if default is True and head else f"no-{tail}" if default is True else flag
    path = next((mark for mark in marks if isinstance(mark, PathKind)), None)
    if path is None and scalar is Path:
        path = PathKind(None)
    group = context.group
    hidden = any(isinstance(mark, _Advanced) for mark in marks)
    return Flag(
        metavar if _is_positional(marks) else f"--{flag}",
        (*context.field, name),
        metavar,
        text,
        default,
        choices,
        () if argument is None else tuple(argument.aliases or ()),
        several,
        path,
        "" if group is None else group.title,
        hidden or (group is not None and not _is_shown(flag, group)),
    )


def _is_shown(flag: str, group: Group) -> bool:
    if group.shown is None:
        return True
    plain = flag.rpartition(".")[2].removeprefix("no-")
    return flag in group.shown or plain in group.shown


def _made(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _unwrapped(hint: object) -> tuple[object, tuple[object, ...]]:
    if typing.get_origin(hint) is typing.Annotated:
        inner, *marks = typing.get_args(hint)
        return inner, tuple(marks)
    return hint, ()


def _argument(marks: tuple[object, ...]) -> Any:
    """Return the mark of ``tyro.conf.arg``, or None."""
    kind = type(tyro.conf.arg(name=""))
    return next((mark for mark in marks if isinstance(mark, kind)), None)


def _is_positional(marks: tuple[object, ...]) -> bool:
    return any(mark is _POSITIONAL for mark in marks)


_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]


def _value(hint: object) -> tuple[object, bool, tuple[str, ...]]:
    """Return the type of a value, whether the flag accepts several, and the choices."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union or origin is types.UnionType:
        return _value(next(inner for inner in arguments if inner is not types.NoneType))
    if origin is tuple:
        scalar, _, choices = _value(arguments[0])
        return scalar, True, choices
    if origin is Literal:
        return str, False, tuple(map(str, arguments))
    return hint, False, ()


def _helps(kind: type) -> dict[str, str]:
    """Return the texts in the ``Attributes`` sections of a class and its bases, by field."""
    helps: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("\nAttributes:\n")[2]
        # Other sections start without indentation.
        body = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", body, re.MULTILINE):
            helps[name] = " ".join(text.split())
    return helps

"""Conversion of dataclasses to TOML tables and back, validated by their annotations."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from sppnet.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Value = TypeVar("Value", bound=DataclassInstance)
else:
    Value = TypeVar("Value")

__all__ = ["DEFAULT_BACKBONE", "as_config", "from_config", "parse_toml", "read_toml"]

DEFAULT_BACKBONE = "lite0"
"""The backbone of estimators and commands that are given none."""

_NONE = "none"  # TOML has no null; written only if None is not the default of the field
_REQUIRED = object()


def as_config(value: DataclassInstance) -> dict[str, object]:
    """Convert the constructor arguments of a dataclass to a TOML table; `from_config` is the inverse.

    Nested dataclasses become tables, paths become strings and tuples become lists. Fields that are None by
    default and have the value None are left out.

    Args:
        value: a dataclass.

    Returns:
        The table.

    Raises:
        UserError: a value has a type that a configuration cannot store.

    Examples:
        >>> from sppnet.learn import SvmOptions
        >>> as_config(SvmOptions(C=0.01))["C"]
        0.01
    """
    table: dict[str, object] = {}
    for field in dataclasses.fields(value):
        if not field.init:
            continue
        content = getattr(value, field.name)
        if content is None and field.default is None:
            continue
        table[field.name] = _plain(content)
    return table


def _plain(content: object) -> object:
    if content is None:
        return _NONE
    if isinstance(content, Path):
        return str(content)
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return as_config(content)
    if isinstance(content, (tuple, list)):
        return [_plain(item) for item in content]
    if not isinstance(content, (bool, int, float, str)):
        got = f"a value of type {type(content).__name__}"
        raise UserError("configuration", "numbers, strings, paths, lists and dataclasses", got)
    return content


def from_config(
    kind: type[Value], table: Mapping[str, object], where: object, missing: object = _REQUIRED
) -> Value:
    """Create a dataclass from a TOML table; fields that are not in the table have their defaults.

    Args:
        kind: a dataclass whose fields are bool, int, float, str, Path, Literal, tuples and unions of
            these, or dataclasses of such fields.
        table: names and values, as `read_toml` returns them.
        where: the file or argument that errors name.
        missing: value of fields that are not in the table and have no default.

    Returns:
        The dataclass.

    Raises:
        UserError: a name is unknown, a value has another type than its field, or a field without default
            is not in the table and ``missing`` is not given.

    Examples:
        >>> from sppnet.learn import SvmOptions
        >>> from_config(SvmOptions, {"C": 0.01}, "config.toml").C
        0.01
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in table:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"Did you mean {close[0]!r}?" if close else ""
            raise UserError(where, "one of the names " + ", ".join(fields), repr(name), hint)
    given: dict[str, object] = {}
    for name, field in fields.items():
        if name in table:
            given[name] = _typed(table[name], hints[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            if missing is _REQUIRED:
                raise UserError(where, f"a value for {name!r}", "none")
            given[name] = missing
    return kind(**given)


def _typed(value: object, hint: object, where: str) -> object:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is typing.Union or origin is types.UnionType:
        return _one_of(value, arguments, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise UserError(where, "one of " + ", ".join(map(repr, arguments)), _shown(value))
    if origin is tuple:
        return _tuple(value, arguments, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return from_config(hint, typing.cast("Mapping[str, object]", value), where)
        raise UserError(where, "a table", _shown(value))
    return _scalar(value, hint, where)


def _scalar(value: object, hint: object, where: str) -> object:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**63 or isinstance(value, float) else math.inf
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (str, bool) and isinstance(value, typing.cast("type", hint)):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) < 2**63:
            return value
        raise UserError(where, "a whole number of at most 64 bits", f"a number of {value.bit_length()} bits")
    named = {float: "a number", int: "a whole number", bool: "true or false", str: "text", Path: "a path"}
    assert isinstance(hint, type)
    assert hint in named, f"configurations do not support fields of type {hint}"
    raise UserError(where, named[hint], _shown(value))


def _one_of(value: object, hints: Sequence[object], where: str) -> object:
    if value == _NONE and types.NoneType in hints:
        return None
    errors: list[UserError] = []
    for hint in hints:
        if hint is types.NoneType:
            continue
        try:
            return _typed(value, hint, where)
        except UserError as error:
            errors.append(error)
    raise UserError(where, " or ".join(error.expected for error in errors), _shown(value))


def _shown(value: object) -> str:
    """Format a value for a message, in at most 200 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python limits the conversion of integers to 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 200 else text[:197] + "..."


def _tuple(value: object, hints: Sequence[object], where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise UserError(where, "a list", _shown(value))
    items = typing.cast("list[object]", value)
    item_hints = [hints[0]] * len(items) if len(hints) == 2 and hints[1] is Ellipsis else list(hints)
    if len(item_hints) != len(items):
        raise UserError(where, f"a list of {len(item_hints)}", _shown(items))
    pairs = enumerate(zip(items, item_hints, strict=True))
    return tuple(_typed(item, hint, f"{where}[{i}]") for i, (item, hint) in pairs)


def read_toml(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Args:
        path: the file.

    Returns:
        Its table.

    Raises:
        UserError: the file does not exist, is not readable or is not valid TOML.

    Examples:
        >>> read_toml(Path("missing.toml"))
        Traceback (most recent call last):
        sppnet.errors.UserError: missing.toml: expected a TOML file, got no such file
    """
    try:
        if path.is_fifo():
            raise UserError(path, "a TOML file", "a pipe")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(path, "a TOML file", "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, "a TOML file", str(error)) from error
    return parse_toml(text, path)


def parse_toml(text: str, where: object) -> dict[str, object]:
    """Parse a string of TOML.

    Args:
        text: the string.
        where: the file that errors name.

    Returns:
        Its table.

    Raises:
        UserError: ``text`` is not valid TOML.

    Examples:
        >>> parse_toml("seed = 3", "config.toml")
        {'seed': 3}
    """
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:  # a number of over 4300 digits raises a plain ValueError
        got = "tables nested too deeply" if isinstance(error, RecursionError) else f"invalid TOML: {error}"
        raise UserError(where, "a TOML file", got) from error

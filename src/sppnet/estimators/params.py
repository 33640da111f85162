"""Parameters of an estimator by name: whole option dataclasses, or single options in them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, cast

from sppnet.errors import UserError


def nested_params(values: Mapping[str, object]) -> dict[str, object]:
    """Return parameters and, as ``options__NAME``, each option of their dataclasses at any depth.

    Examples:
        >>> from sppnet.classify import ClassifierOptions
        >>> nested_params({"seed": 0, "options": ClassifierOptions()})["options__C"]
        10.0
    """
    params = dict(values)
    for name, value in values.items():
        if _is_options(value):
            options = nested_params(_fields(value))
            params |= {f"{name}__{option}": content for option, content in options.items()}
    return params


def changed_params(
    values: Mapping[str, object], changes: Mapping[str, object], where: str
) -> dict[str, object]:
    """Return parameters with some of them, or of their options, replaced.

    Args:
        values: parameters by name, some of them option dataclasses.
        changes: new values by name: a parameter (``seed``), an option of one (``options__C``), or the bare
            name of an option that only one of the dataclasses has (``C``).
        where: the estimator, for messages.

    Returns:
        The new parameters by name; ``values`` is unchanged.

    Raises:
        UserError: a name is neither a parameter nor an option, or is an option of several dataclasses.

    Examples:
        >>> from sppnet.classify import ClassifierOptions
        >>> changed_params({"options": ClassifierOptions()}, {"C": 1.0}, "Classifier")["options"].C
        1.0
    """
    params = dict(values)
    for name, value in changes.items():
        path = _path(params, name, where)
        params[path[0]] = _replaced(params[path[0]], path[1:], value, where, name)
    return params


def _path(values: Mapping[str, object], name: str, where: str) -> list[str]:
    path = name.split("__")
    if path[0] in values:
        return path
    owners = _owners(values, path[0])
    if len(owners) == 1:
        return [*owners[0], *path]
    if owners:
        full = ["__".join([*owner, name]) for owner in owners]
        listed = " and ".join(".".join(owner) for owner in owners)
        raise UserError(where, "the name of one option", f"{name!r}, which {listed} have", f"Write {full[0]}")
    raise _unknown(values, name, where)


def _owners(values: Mapping[str, object], name: str) -> list[list[str]]:
    """Return the paths of all dataclasses, at any depth, that have a field."""
    found: list[list[str]] = []
    for owner, value in values.items():
        if _is_options(value):
            inner = _fields(value)
            found += [[owner]] if name in inner else [[owner, *path] for path in _owners(inner, name)]
    return found


def _replaced(value: object, path: list[str], new: object, where: str, name: str) -> object:
    if not path:
        return new
    if not _is_options(value) or path[0] not in _fields(value):
        raise _unknown(_fields(value) if _is_options(value) else {}, name, where)
    options = _replaced(_fields(value)[path[0]], path[1:], new, where, name)
    return dataclasses.replace(cast("Any", value), **{path[0]: options})


def _unknown(values: Mapping[str, object], name: str, where: str) -> UserError:
    known = sorted({option.rpartition("__")[2] for option in nested_params(values)})
    close = difflib.get_close_matches(name.rpartition("__")[2], known, 1)
    hint = f"Did you mean {close[0]!r}?" if close else ""
    return UserError(where, "one of the parameters " + ", ".join(values), repr(name), hint)


def _is_options(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _fields(value: object) -> dict[str, object]:
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(cast("Any", value)) if f.init}

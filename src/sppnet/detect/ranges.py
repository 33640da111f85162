"""Legal ranges of options: tables of a predicate and its description by name of the option."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from sppnet.errors import UserError

Range: TypeAlias = tuple[Callable[[Any], bool], str]

ABOVE_0: Range = (lambda value: value > 0, "a number above 0")
AT_LEAST_0: Range = (lambda value: value >= 0, "at least 0")
AT_LEAST_1: Range = (lambda value: value >= 1, "at least 1")
IOU: Range = (lambda value: 0 <= value <= 1, "an IoU, 0 to 1")
SHARE: Range = (lambda value: 0 < value <= 1, "a fraction above 0, at most 1")
BELOW_1: Range = (lambda value: 0 <= value < 1, "at least 0, below 1")


def check_ranges(options: object, table: Mapping[str, Range], where: str = "options") -> None:
    """Validate the fields of a dataclass by a table of ranges.

    Args:
        options: the dataclass.
        table: ranges by name of the field; other fields may have any value of their type.
        where: name of the dataclass in error messages.

    Raises:
        UserError: a value is out of range; it names the first one.

    Examples:
        >>> from types import SimpleNamespace
        >>> check_ranges(SimpleNamespace(C=1.0), {"C": ABOVE_0})
    """
    for name, (right, expected) in table.items():
        value = getattr(options, name)
        if not right(value):
            raise UserError(f"{where}.{name}", expected, value)

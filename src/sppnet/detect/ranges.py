"""Legal ranges of options, as tables: a test and the words for it, by the option's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from sppnet.errors import UserError

Range: TypeAlias = tuple[Callable[[Any], bool], str]

ABOVE_0: Range = (lambda value: value > 0, "a number above 0")
AT_LEAST_0: Range = (lambda value: value >= 0, "at least 0")
AT_LEAST_1: Range = (lambda value: value >= 1, "at least 1")
IOU: Range = (lambda value: 0 <= value <= 1, "an IoU, 0 to 1")
SHARE: Range = (lambda value: 0 < value <= 1, "a share above 0, at most 1")
BELOW_1: Range = (lambda value: 0 <= value < 1, "at least 0, below 1")


def check_ranges(options: object, table: Mapping[str, Range], where: str = "options") -> None:
    """Check the fields of a dataclass against a table.

    Args:
        options: the dataclass.
        table: ranges by the field's name; fields that it lacks may have every value of their type.
        where: what errors name before the field.

    Raises:
        UserError: the first value out of its range.

    Examples:
        >>> from types import SimpleNamespace
        >>> check_ranges(SimpleNamespace(C=1.0), {"C": ABOVE_0})
    """
    for name, (right, wanted) in table.items():
        value = getattr(options, name)
        if not right(value):
            raise UserError(f"{where}.{name}", wanted, value)

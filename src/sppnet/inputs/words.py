"""Format counts and lists for messages."""

from __future__ import annotations

from collections.abc import Sequence


def plural(count: int, one: str, several: str = "") -> str:
    """Format a count with its noun.

    Examples:
        >>> plural(1, "image"), plural(2, "class", "classes")
        ('1 image', '2 classes')
    """
    return f"{count} {one if count == 1 else several or one + 's'}"


def shortened(names: Sequence[object], most: int = 5) -> str:
    """Join the first names of a list with commas.

    Examples:
        >>> shortened("abc", most=2)
        'a, b and 1 more'
    """
    shown = ", ".join(printable(str(name))[:200] for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def printable(name: str) -> str:
    r"""Escape characters of a file name that cannot be printed: line breaks, bytes that are not UTF-8.

    Examples:
        >>> printable("a\nb é")
        'a\\nb é'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in name
    )

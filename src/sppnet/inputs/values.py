"""Parse single values of label files: numbers, flags, identifiers and class names."""

from __future__ import annotations

import math
import re
import unicodedata

from sppnet.errors import UserError
from sppnet.inputs.text import shown

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
_PLAIN = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_NO = {"", "0", "false", "f", "no", "n", "off", "none", "null", "unspecified"}
_YES = {"1", "true", "t", "yes", "y", "on"}
_LONGEST = 1000  # characters of a name or identifier
LIMIT = 2**63 - 1


def whole(value: object, where: object, expected: str = "a whole number") -> int:
    """Parse a whole number from an integer, a text or a float without decimals.

    Raises:
        UserError: the value is something else, or exceeds 64 bits.

    Examples:
        >>> whole("3.000", "a.txt"), whole(4.0, "a.txt")
        (3, 4)
    """
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    if isinstance(value, float) and value.is_integer() and abs(value) < LIMIT:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LIMIT:
        return value
    raise UserError(where, expected, _described(value))


def real(value: object) -> float:
    """Parse a finite number from a number or from a text with a decimal point.

    Raises:
        ValueError: the value is something else, such as NaN or an infinity.

    Examples:
        >>> real("1.5e2")
        150.0
    """
    if isinstance(value, str):
        text = value.strip()
        if len(text) > _LONGEST or not _REAL.fullmatch(text):
            raise ValueError(f"not a number: {shown(value)}")
        number = float(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    else:
        raise ValueError(f"not a number: {shown(value)}")
    if not math.isfinite(number):
        raise ValueError(f"not a finite number: {shown(value)}")
    return number


def flag(value: object, where: object) -> bool:
    """Parse a flag such as ``iscrowd`` or ``difficult``.

    Raises:
        UserError: the value is neither true nor false in any common notation.

    Examples:
        >>> [flag(value, "a.json") for value in (0, "0", "false", 0.0, None, True, "yes", "1.0")]
        [False, False, False, False, False, True, True, True]
    """
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int | float) else "-"
    text = re.sub(r"^\+?([01])(\.0*)?$", r"\1", text)
    if text in _NO or text in _YES:
        return text in _YES
    raise UserError(where, "0 or 1, true or false", _described(value))


def identifier(value: object, where: object, expected: str) -> int | str:
    """Parse an identifier of COCO, a whole number or a text.

    Raises:
        UserError: the value is something else, such as a list or null.

    Examples:
        >>> identifier(7.0, "a.json", "an id"), identifier("7", "a.json", "an id")
        (7, '7')
    """
    if isinstance(value, str):
        if value.strip() and len(value) <= _LONGEST and is_encodable(value):
            return value
        raise UserError(where, expected, _described(value))
    return whole(value, where, expected)


def same_key(value: int | str) -> int | str:
    """Return a common key for equal identifiers, because files mix 3 and ``"3"``.

    Examples:
        >>> same_key("3") == same_key(3), same_key("003")
        (True, '003')
    """
    if isinstance(value, str):
        text = value.strip()
        return int(text) if _PLAIN.fullmatch(text) else text
    return value


def class_name(value: object, where: object) -> str:
    """Parse a class name, stripped; a number becomes its text.

    Raises:
        UserError: the value is empty, null or a list, has control characters, or has more than 1,000
            characters.

    Examples:
        >>> class_name(" cat ", "a.xml")
        'cat'
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip():
        raise UserError(where, "a class name", "none" if value is None or value == "" else _described(value))
    text = text.strip()
    if len(text) > _LONGEST or not is_encodable(text):
        raise UserError(where, f"a class name of at most {_LONGEST:,} characters", shown(text))
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise UserError(where, "a class name without control characters", shown(text))
    return text


def is_encodable(text: str) -> bool:
    """Return whether a text has no lone surrogates, which can be neither printed nor saved."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _described(value: object) -> str:
    if isinstance(value, int) and abs(value) > LIMIT:
        return "a number of more than 64 bits"
    return shown(value)

"""Errors that the user can fix.

An invalid input raises `UserError`. The command line prints it as one line and exits with 2; in
Python it is a `ValueError`. Every other exception is a defect of the package.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Generator
from contextlib import contextmanager

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LONGEST = 400  # characters of a word in a message; file names have at most 255 bytes
_JOINERS = "\u200c\u200d"  # scripts such as Devanagari and Persian are written with them


def visible(text: str) -> str:
    r"""Escape control characters, so that a terminal shows them instead of interpreting them.

    Control and format characters (terminal escapes, line breaks, changes of the writing direction) and bytes
    of file names that are not UTF-8 are escaped.

    Examples:
        >>> visible("a\x1b[31m.jpg")
        'a\\x1b[31m.jpg'
        >>> visible("naïve 猫")
        'naïve 猫'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        ch.encode("unicode_escape").decode()
        if unicodedata.category(ch) in _HIDDEN and ch not in _JOINERS
        else ch
        for ch in text
    )


class UserError(ValueError):
    """Invalid input: the file or argument, what was expected, what was given, and how to fix it.

    Args:
        where: the argument or file at fault, such as ``"regions[3]"`` or ``"/data/a.xml"``.
        expected: what is valid, a noun phrase.
        got: what was given, a noun phrase.
        hint: how to fix it, a sentence; empty where ``expected`` is enough.

    Examples:
        >>> str(UserError("levels", "positive integers", (3, 0), "Remove the 0."))
        'levels: expected positive integers, got (3, 0). Remove the 0.'
    """

    def __init__(self, where: object, expected: str, got: object, hint: str = "") -> None:
        self.where = str(where)
        self.expected = expected
        self.got = str(got)
        self.hint = hint
        where = visible(" ".join(self.where.split()))
        message = f"{where}: expected {_one_line(expected)}, got {_one_line(self.got)}"
        if hint:
            message = f"{message.rstrip('.')}. {_one_line(hint)}"
        super().__init__(message)


def _one_line(text: str) -> str:
    """Return text without line breaks and escapes; very long words, as from damaged files, are truncated."""
    words = (word if len(word) <= _LONGEST else f"{word[: _LONGEST // 2]}..." for word in text.split())
    return visible(" ".join(words))


class MissingExtraError(UserError):
    """An optional dependency that is not installed.

    Args:
        package: the module that could not be imported.
        extra: the extra of sppnet that installs it.
        job: the feature that needs it.

    Examples:
        >>> MissingExtraError("pyarrow", "parquet", "proposals").hint
        "Install it with: pip install 'sppnet[parquet]'"
    """

    def __init__(self, package: str, extra: str, job: str) -> None:
        super().__init__(
            job,
            f"the package {package}",
            "none installed",
            f"Install it with: pip install 'sppnet[{extra}]'",
        )


@contextmanager
def memory_errors() -> Generator[None]:
    """Raise `MemoryError` where torch raises a RuntimeError of its own because no memory is left.

    Examples:
        >>> with memory_errors():
        ...     raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        Traceback (most recent call last):
        MemoryError: DefaultCPUAllocator: can't allocate memory
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "DefaultCPUAllocator" in text or "out of memory" in text:
            raise MemoryError(" ".join(text.split())) from error
        raise

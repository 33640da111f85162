"""Errors that the user can fix.

A mistake in the input raises `UserError`. The command line prints it as one line and exits with 2; in
Python it is a `ValueError`. Every other exception is a defect of the package.
"""

from __future__ import annotations


class UserError(ValueError):
    """Invalid input: the file or argument, what was expected, what was given, and how to fix it.

    Args:
        where: the argument or file at fault, such as ``"regions[3]"`` or ``"/data/a.xml"``.
        expected: what would have been valid.
        got: what was given instead.
        hint: how to fix it; may be empty where ``expected`` says it already.

    Examples:
        >>> str(UserError("levels", "positive integers", (3, 0), "Remove the 0."))
        'levels: expected positive integers, got (3, 0). Remove the 0.'
    """

    def __init__(self, where: object, expected: str, got: object, hint: str = "") -> None:
        self.where = str(where)
        self.expected = expected
        self.got = str(got)
        self.hint = hint
        message = f"{self.where}: expected {expected}, got {self.got}"
        if hint:
            message += f". {hint}"
        super().__init__(" ".join(message.split()))


class MissingExtraError(UserError):
    """An optional dependency that is not installed.

    Args:
        package: the module that could not be imported.
        extra: the extra of sppnet that installs it.
        job: what it is needed for.

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

"""What a user did wrong, said once and clearly.

A mistake in the input raises `UserError`. The shell prints it as one line and exits with 2; from
Python it is an ordinary `ValueError`. Everything else that is raised is a defect of ours.
"""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave: which file or argument, what was wanted, what was got, what to do.

    Args:
        where: the argument or file at fault, such as ``"regions[3]"`` or ``"/data/a.xml"``.
        wanted: what would have been right.
        got: what was there instead.
        todo: what the user can do about it; may be empty where ``wanted`` says it already.
    """

    def __init__(self, where: object, wanted: str, got: object, todo: str = "") -> None:
        self.where = str(where)
        self.wanted = wanted
        self.got = str(got)
        self.todo = todo
        message = f"{self.where}: wanted {wanted}, got {self.got}"
        if todo:
            message += f". {todo}"
        super().__init__(" ".join(message.split()))


class MissingExtraError(UserError):
    """An optional part of the package that is not installed.

    Args:
        package: the module that could not be imported.
        extra: the extra of sppnet that brings it.
        job: what it is needed for.
    """

    def __init__(self, package: str, extra: str, job: str) -> None:
        super().__init__(
            job,
            f"the package {package}",
            "none installed",
            f"Install it with: pip install 'sppnet[{extra}]'",
        )

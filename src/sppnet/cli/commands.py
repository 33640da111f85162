"""All commands with their flags, for completion and tests."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from sppnet.cli.flag_table import Flag, flag_table

__all__ = ["Command", "all_commands"]


@dataclass(frozen=True)
class Command:
    """A verb, or a job of a verb.

    Attributes:
        words: the verb and, if the verb has jobs, the job.
        help: its description.
        flags: its dataclass of flags; None for a verb with jobs.
    """

    words: tuple[str, ...]
    help: str
    flags: type | None

    @property
    def name(self) -> str:
        """The words, joined by a space."""
        return " ".join(self.words)

    def table(self) -> list[Flag]:
        """Return the flags; none for a verb with jobs."""
        return [] if self.flags is None else flag_table(self.flags)


def all_commands(verbs: Mapping[str, str]) -> list[Command]:
    """List all commands in the order of the verbs, each verb before its jobs.

    The module of a verb has either ``JOBS`` or a dataclass of flags.

    Args:
        verbs: descriptions of the verbs by name.

    Examples:
        >>> [command.name for command in all_commands({"fit": "linear heads"})]
        ['fit', 'fit detect', 'fit classify']
    """
    commands: list[Command] = []
    for verb, text in verbs.items():
        module = importlib.import_module(f"sppnet.cli.{verb}")
        jobs: Mapping[str, str] | None = getattr(module, "JOBS", None)
        if jobs is None:
            commands.append(Command((verb,), text, _flags(module)))
            continue
        commands.append(Command((verb,), text, None))
        for job, what in jobs.items():
            inner = importlib.import_module(f"sppnet.cli.{verb}_{job}")
            commands.append(Command((verb, job), what, _flags(inner)))
    return commands


def _flags(module: ModuleType) -> type:
    offered = (getattr(module, name) for name in module.__all__)
    return next(value for value in offered if isinstance(value, type) and dataclasses.is_dataclass(value))

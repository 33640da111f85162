"""Verbs with several jobs, one module per job."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from sppnet.cli.flags import UsageError

__all__ = ["run_job"]


def run_job(verb: str, jobs: Mapping[str, str], words: list[str], shape: str) -> int:
    """Run ``sppnet.cli.<verb>_<job>.run`` on the words after the job.

    Args:
        verb: the verb.
        jobs: descriptions of the jobs by name.
        words: the command line after the verb.
        shape: the arguments after the job, for the help.

    Returns:
        The exit code.

    Raises:
        UsageError: the job does not exist.
    """
    if not words or words[0] in ("-h", "--help", "--help-all"):
        width = max(map(len, jobs))
        lines = [f"  {job:<{width}}  {what}" for job, what in jobs.items()]
        head = f"usage: sppnet {verb} JOB {shape}".rstrip()
        print("\n".join([head, "", *lines, "", f"sppnet {verb} JOB --help lists the flags of a job."]))
        return 0
    if words[0] not in jobs:
        raise UsageError(f"sppnet {verb}", f"{words[0]!r} is none of " + ", ".join(jobs))
    return int(importlib.import_module(f"sppnet.cli.{verb}_{words[0]}").run(words[1:]))

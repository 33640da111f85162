"""Dispatch on the verb, and the exit codes.

Nothing heavy is imported here: ``sppnet --help`` must answer at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from sppnet.errors import UserError

__all__ = ["VERBS", "main"]

VERBS = {
    "check": "what is installed, which device, which kernels, which optional parts",
    "demo": "offline, a few minutes on two cores: fit, evaluate, predict, report",
    "fit": "fit detect | classify DATA --out RUN: linear heads on frozen features",
    "train": "train classify | detect DATA --out RUN: networks by backpropagation, as the paper does",
    "evaluate": "RUN DATA [--split S]: a table on the screen, metrics.json and report.html in RUN",
    "predict": "RUN SOURCE... [--out DIR]: drawn images and predictions for images, folders, globs",
    "serve": "RUN [--host H] [--port P]: predictions over HTTP, and a page to try them",
    "benchmark": "pooling | fitting | detection | classification: ratios against peers, in one run",
    "reproduce": "TABLE --data DIR: a table of the paper beside this machine's figures",
}
"""The verbs and what each does; ``sppnet.cli.<verb>.run(arguments)`` does it and returns the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the shell.

    Args:
        arguments: the words after ``sppnet``; those of the process when None.

    Returns:
        0 on success; 2 for a mistake of the user's, after one line on stderr; 130 when interrupted. A
        failure of ours raises, which the interpreter turns into a traceback and 1.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"sppnet {version('sppnet')}")
        return 0
    verb = words[0]
    try:
        if verb not in VERBS:
            raise UserError("verb", "one of " + ", ".join(VERBS), repr(verb), _close(verb))
        room = importlib.import_module(f"sppnet.cli.{verb}")
        return int(room.run(words[1:]))
    except UserError as error:
        print(f"sppnet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sppnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`sppnet ... | head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "usage: sppnet VERB ...",
            "",
            "Spatial pyramid pooling: features, classifiers and detectors for images of any size.",
            "",
            *lines,
            "",
            "sppnet VERB --help tells the flags of a verb; sppnet --version the version.",
        ]
    )


def _close(verb: str) -> str:
    import difflib

    found = difflib.get_close_matches(verb, VERBS, 1)
    return f"Did you mean {found[0]!r}?" if found else "See sppnet --help."

"""Dispatch on the verb, and the exit codes.

Nothing heavy is imported here: ``sppnet --help`` must answer at once.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from sppnet.errors import UserError

__all__ = ["VERBS", "console_main", "main"]

_SYSTEM_FAULTS = frozenset(
    number
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "EMFILE", "EFBIG")
    if (number := getattr(errno, name, None)) is not None
)
"""Failures of the file system that are no defect of the package."""

_WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""How users choose what waiting OpenMP threads do: the standard's variable, GNU's and LLVM's."""

VERBS = {
    "check": "what is installed, which device, which kernels, which optional parts",
    "demo": "offline, a few minutes on two cores: fit, evaluate, predict, report",
    "backbones": "which networks can be used: strides, channels, licence, size, measured figures",
    "fit": "fit detect | classify DATA --out RUN: linear heads on frozen features",
    "train": "train classify | detect DATA --out RUN: networks by backpropagation, as the paper does",
    "evaluate": "RUN DATA [--split S]: a table on the screen, metrics.json and report.html in RUN",
    "predict": "RUN SOURCE... [--out DIR]: drawn images and predictions for images, folders, globs",
    "features": "SOURCE... --out FILE [--boxes FILE]: feature vectors of images or boxes, .npy or Parquet",
    "export": "RUN --out FILE.onnx: one file for images of any size, run by sppnet.runtime without torch",
    "serve": "RUN [--host H] [--port P]: predictions over HTTP, and a page to try them",
    "benchmark": "pooling | fitting | detection | classification | backbones: ratios against peers",
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
    _quieten_pillow()
    _let_idle_threads_sleep()
    try:
        if verb not in VERBS:
            raise UserError("verb", "one of " + ", ".join(VERBS), repr(verb), _close(verb))
        room = importlib.import_module(f"sppnet.cli.{verb}")
        code = int(room.run(words[1:]))
        sys.stdout.flush()
        return code
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
    except OSError as error:
        if error.errno not in _SYSTEM_FAULTS:
            raise
        where = error.filename if error.filename is not None else "file system"
        wanted = "room and permission to write"
        print(f"sppnet: {UserError(where, wanted, error.strerror or error)}", file=sys.stderr)
        return 2


def console_main() -> NoReturn:
    """Run `main` as the console script: an interrupt at any moment, even during imports, is one line."""
    import signal

    signal.signal(signal.SIGINT, _interrupt)
    code = main()
    # Whatever libraries do at exit, an interrupt must not print a traceback any more.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt`, so that files are closed and removed; during imports, leave at once.

    A library that is interrupted while it is imported may turn the interrupt into another exception, or
    print it and go on.
    """
    if _importing(frame):
        os.write(2, b"sppnet: interrupted\n")
        os._exit(130)
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _quieten_pillow() -> None:
    """Keep Pillow's warnings about odd files off stderr: what cannot be read is said in one line."""
    import logging
    import warnings

    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())


def _let_idle_threads_sleep() -> None:
    """Let waiting OpenMP threads sleep instead of spin, unless the user has chosen.

    On busy cores a spinning thread takes the time slice of the thread that it waits for. The OpenMP
    libraries read the variable when they are loaded, which torch does on import.
    """
    if not any(name in os.environ for name in _WAIT_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "passive"


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

"""Dispatch of the verbs and exit codes.

Nothing heavy is imported here, so that ``sppnet --help`` is fast.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from sppnet.errors import UserError, memory_errors

__all__ = ["VERBS", "console_main", "main"]

_SYSTEM_FAULTS = frozenset(
    number
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "EMFILE", "EFBIG")
    if (number := getattr(errno, name, None)) is not None
)
"""Errors of the file system that are not defects of the package."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables for waiting OpenMP threads: of the standard, of GNU and of LLVM."""

VERBS = {
    "check": "check the installation: packages, device, kernels, optional extras",
    "demo": "fit, evaluate and predict on images from scikit-learn; offline, a few minutes on two cores",
    "backbones": "list the networks: strides, channels, licence, size, accuracy and time",
    "fit": "detect|classify DATA --out RUN: fit linear heads on frozen features",
    "train": "classify|detect DATA --out RUN: train networks by backpropagation, as in the paper",
    "evaluate": "RUN DATA: print the metrics, write metrics.json and report.html into the run",
    "predict": "RUN SOURCE...: predict on images, folders, globs and videos, and draw the results",
    "features": "SOURCE... --out FILE: write feature vectors of images or boxes, as .npy or Parquet",
    "export": "RUN --out FILE.onnx: write one ONNX file for images of any size",
    "serve": "RUN: answer predictions over HTTP, with a page to try them",
    "benchmark": "pooling|fitting|detection|backbones|classification: compare times with peers",
    "reproduce": "TABLE --data DATA: reproduce a table of the paper on a local data set",
}
"""Descriptions of the verbs; ``sppnet.cli.<verb>.run(arguments)`` runs a verb and returns the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the shell.

    Args:
        arguments: the command line after ``sppnet``; that of the process by default.

    Returns:
        0 on success; 2 for invalid input, after one line on stderr; 130 after an interrupt. A defect of the
        package raises an exception, for which the interpreter prints a traceback and exits with code 1.
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
    _keep_freed_memory()
    try:
        if verb.partition("=")[0] == "--print-completion":
            from sppnet.cli.completion import completion_script

            named = verb.partition("=")[2] or " ".join(words[1:])
            print(completion_script(named, VERBS), end="")
            return 0
        if verb not in VERBS:
            raise UserError("verb", "one of " + ", ".join(VERBS), repr(verb), _close(verb))
        module = importlib.import_module(f"sppnet.cli.{verb}")
        with memory_errors():
            code = int(module.run(words[1:]))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"sppnet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sppnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has closed the pipe (`sppnet ... | head`), so that buffered output is discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError as error:
        hint = "Use smaller images, scales or tiles."
        lack = UserError("memory", "enough free memory", str(error) or "none", hint)
        print(f"sppnet: {lack}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _SYSTEM_FAULTS:
            raise
        where = error.filename if error.filename is not None else "file system"
        expected = "free space and permission to write"
        print(f"sppnet: {UserError(where, expected, error.strerror or error)}", file=sys.stderr)
        return 2


def console_main() -> NoReturn:
    """Run `main` as the console script; an interrupt prints one line at any time, even during imports."""
    import signal

    signal.signal(signal.SIGINT, _interrupt)
    code = main()
    # At exit, libraries could print a traceback after an interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt`, so that files are closed and removed; during imports, exit at once.

    A library that is interrupted during its import may convert the interrupt to another exception, or print
    and ignore it.
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
    """Suppress warnings of Pillow, because unreadable files are reported in one line."""
    import logging
    import warnings

    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())


def _let_idle_threads_sleep() -> None:
    """Set waiting OpenMP threads to sleep instead of spin, unless the user has set a policy.

    On busy cores a spinning thread uses the time slice of the thread that it waits for. The OpenMP libraries
    read the variable when they are loaded, which happens when torch is imported.
    """
    if not any(name in os.environ for name in _WAIT_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _keep_freed_memory() -> None:
    """Let the allocator of glibc reuse blocks of up to 128 MB, unless a MALLOC_ variable of the user is set.

    By default it returns every freed block above 32 MB to the system, so that each large feature map of each
    image faults its pages in again, a quarter of the time of a network.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):  # the C library is not glibc
        adjust = ctypes.CDLL(None).mallopt
        adjust(_M_MMAP_THRESHOLD, 128 * 2**20)
        adjust(_M_TRIM_THRESHOLD, 256 * 2**20)


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
            "sppnet VERB --help       the main flags of a verb; --help-all lists all flags",
            "sppnet --version         the version",
            "sppnet --print-completion bash|zsh|fish",
            "                         shell completion; for bash, add this line to ~/.bashrc:",
            '                         eval "$(sppnet --print-completion bash)"',
        ]
    )


def _close(verb: str) -> str:
    import difflib

    found = difflib.get_close_matches(verb, VERBS, 1)
    return f"Did you mean {found[0]!r}?" if found else "See sppnet --help."

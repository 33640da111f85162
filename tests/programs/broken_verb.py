"""Run `sppnet check` with a failure of our own in it."""

import sys
from types import ModuleType

from sppnet.cli import main


def run(words: list[str]) -> int:
    raise ZeroDivisionError


broken = ModuleType("sppnet.cli.check")
broken.run = run
sys.modules[broken.__name__] = broken
sys.exit(main(["check"]))

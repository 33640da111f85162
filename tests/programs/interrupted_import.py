"""Run `sppnet check`, interrupted as by Ctrl-C when a module is first imported.

usage: interrupted_import.py MODULE
"""

import builtins
import signal
import sys

from sppnet.cli import console_main

real, wanted = builtins.__import__, sys.argv[1]


def hooked(name: str, *rest: object, **named: object) -> object:
    if name.partition(".")[0] == wanted:
        builtins.__import__ = real
        signal.raise_signal(signal.SIGINT)
    return real(name, *rest, **named)


builtins.__import__ = hooked
sys.argv = ["sppnet", "check"]
console_main()

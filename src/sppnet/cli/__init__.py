"""The command line: ``sppnet VERB ...``, one file per verb, with flags from dataclasses."""

from sppnet.cli.shell import console_main, main

__all__ = ["console_main", "main"]

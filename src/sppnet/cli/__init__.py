"""The shell: ``sppnet VERB ...``, one file a verb; flags come from dataclasses."""

from sppnet.cli.shell import console_main, main

__all__ = ["console_main", "main"]

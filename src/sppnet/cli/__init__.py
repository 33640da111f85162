"""The shell: ``sppnet VERB ...``, one file a verb; flags come from dataclasses."""

from sppnet.cli.shell import main

__all__ = ["main"]

"""Run the command line as ``python -m sppnet``."""

from __future__ import annotations

from sppnet.cli import console_main

if __name__ == "__main__":
    console_main()

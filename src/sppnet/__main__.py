"""``python -m sppnet`` is ``sppnet``."""

from __future__ import annotations

import sys

from sppnet.cli import main

if __name__ == "__main__":
    sys.exit(main())

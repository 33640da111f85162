"""Types of flags of several verbs."""

from __future__ import annotations

from typing import Literal

__all__ = ["Device", "Layout"]

Device = Literal["auto", "cpu", "cuda", "mps"]
"""The values of ``--device``."""

Layout = str
"""The values of ``--format``: one of `sppnet.data.layout_names`, validated when the data are read."""

"""The values of flags that several verbs have."""

from __future__ import annotations

from typing import Literal

__all__ = ["Device", "Layout"]

Device = Literal["auto", "cpu", "cuda", "mps"]
"""The values of ``--device``."""

Layout = str
"""A value of ``--format``: one of `sppnet.data.layout_names`, checked when the data are read."""

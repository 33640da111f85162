"""The values of flags that several verbs have."""

from __future__ import annotations

from typing import Literal

__all__ = ["Device", "Layout"]

Device = Literal["auto", "cpu", "cuda", "mps"]
"""The values of ``--device``."""

Layout = Literal["voc", "coco", "yolo", "folders"]
"""The values of ``--format``."""

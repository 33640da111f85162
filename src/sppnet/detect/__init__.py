"""Detection: maps once per image, windows pooled from them, SVMs, box regression, merging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sppnet.lazy import lazy_names

if TYPE_CHECKING:
    from sppnet.detect.detector import Detector
    from sppnet.detect.options import DetectorOptions
    from sppnet.detect.result import DetectionResult

__all__ = ["DetectionResult", "Detector", "DetectorOptions"]

_HOMES = {
    "Detector": "sppnet.detect.detector",
    "DetectorOptions": "sppnet.detect.options",
    "DetectionResult": "sppnet.detect.result",
}

__getattr__ = lazy_names(__name__, _HOMES)

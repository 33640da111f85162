"""Detection: maps once per image, windows pooled from them, SVMs, box regression, merging."""

from sppnet.detect.detector import Detector
from sppnet.detect.options import DetectorOptions
from sppnet.detect.result import DetectionResult

__all__ = ["DetectionResult", "Detector", "DetectorOptions"]

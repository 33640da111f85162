"""Run exported models with NumPy, ONNX Runtime and Pillow, without torch."""

from sppnet.runtime.results import ClassificationResult, DetectionResult
from sppnet.runtime.session import Runtime

__all__ = ["ClassificationResult", "DetectionResult", "Runtime"]

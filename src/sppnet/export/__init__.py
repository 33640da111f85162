"""Export feature extractors, classifiers and detectors for images of any size to ONNX and torch.export."""

from sppnet.export.api import export_estimator, export_features
from sppnet.export.measure import evaluate_export
from sppnet.export.program import export_program

__all__ = ["evaluate_export", "export_estimator", "export_features", "export_program"]

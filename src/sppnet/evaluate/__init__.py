"""Metrics: average precision of PASCAL VOC and COCO for detectors, accuracies for classifiers.

Shapes: `N` images, `K` classes, `M` detections.
"""

from sppnet.evaluate.classification import classification_metrics, mean_average_precision
from sppnet.evaluate.coco import CocoClass, CocoScores, coco_scores
from sppnet.evaluate.detection import detection_metrics
from sppnet.evaluate.voc import PrecisionRecall, precision_recall, voc_curves

__all__ = [
    "CocoClass",
    "CocoScores",
    "PrecisionRecall",
    "classification_metrics",
    "coco_scores",
    "detection_metrics",
    "mean_average_precision",
    "precision_recall",
    "voc_curves",
]

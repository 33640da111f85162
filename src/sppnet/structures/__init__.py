"""Frozen values that pass between stages; each is validated once, when it is made."""

from sppnet.structures.boxes import Boxes, ImageSize
from sppnet.structures.detections import Detections, GroundTruth, Proposals
from sppnet.structures.maps import FeatureMap, FeatureMaps, Grid
from sppnet.structures.sets import (
    ClassificationItem,
    ClassificationSet,
    DetectionItem,
    DetectionSet,
)

__all__ = [
    "Boxes",
    "ClassificationItem",
    "ClassificationSet",
    "DetectionItem",
    "DetectionSet",
    "Detections",
    "FeatureMap",
    "FeatureMaps",
    "Grid",
    "GroundTruth",
    "ImageSize",
    "Proposals",
]

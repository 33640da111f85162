"""Immutable values that the stages exchange; each is validated on construction.

Shapes: `N` boxes, `C` channels, `H` and `W` height and width of a feature map.
"""

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

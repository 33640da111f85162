"""Spatial pyramid pooling: features, classifiers and detectors for images of any size."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sppnet.classify import Classifier, NetworkClassifier
    from sppnet.detect import Detector
    from sppnet.estimators import load
    from sppnet.features.extractor import FeatureExtractor
    from sppnet.nn import RegionPyramidPool2d, SpatialPyramidPool2d

    __version__: str

__all__ = [
    "Classifier",
    "Detector",
    "NetworkClassifier",
    "FeatureExtractor",
    "RegionPyramidPool2d",
    "SpatialPyramidPool2d",
    "__version__",
    "load",
]

_MODULES = {
    "Classifier": "sppnet.classify",
    "Detector": "sppnet.detect",
    "NetworkClassifier": "sppnet.classify",
    "FeatureExtractor": "sppnet.features.extractor",
    "RegionPyramidPool2d": "sppnet.nn",
    "SpatialPyramidPool2d": "sppnet.nn",
    "load": "sppnet.estimators",
}


def __getattr__(name: str) -> object:
    # torch takes seconds to import: names are imported on first use.
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("sppnet")
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module 'sppnet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

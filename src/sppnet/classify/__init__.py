"""Classification of images of any size: linear SVMs on frozen features, or whole trained networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sppnet.lazy import lazy_names

if TYPE_CHECKING:
    from sppnet.classify.classifier import Classifier
    from sppnet.classify.network_classifier import NetworkClassifier
    from sppnet.classify.network_options import NetworkOptions
    from sppnet.classify.options import ClassifierOptions
    from sppnet.classify.result import ClassificationResult
    from sppnet.classify.train_options import TrainOptions
    from sppnet.classify.views import ViewOptions

__all__ = [
    "ClassificationResult",
    "Classifier",
    "ClassifierOptions",
    "NetworkClassifier",
    "NetworkOptions",
    "TrainOptions",
    "ViewOptions",
]

_HOMES = {
    "Classifier": "sppnet.classify.classifier",
    "NetworkOptions": "sppnet.classify.network_options",
    "ClassifierOptions": "sppnet.classify.options",
    "ClassificationResult": "sppnet.classify.result",
    "TrainOptions": "sppnet.classify.train_options",
    "NetworkClassifier": "sppnet.classify.network_classifier",
    "ViewOptions": "sppnet.classify.views",
}

__getattr__ = lazy_names(__name__, _HOMES)

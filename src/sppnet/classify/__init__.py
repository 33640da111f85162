"""Classification of images of any size: linear SVMs on frozen features, or whole trained networks."""

from sppnet.classify.classifier import Classifier
from sppnet.classify.network import NetworkOptions
from sppnet.classify.options import ClassifierOptions
from sppnet.classify.result import ClassificationResult
from sppnet.classify.train_options import TrainOptions
from sppnet.classify.trained import NetworkClassifier
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

"""Classification of images of any size: pyramid-pooled features of the full image and a linear SVM."""

from sppnet.classify.classifier import Classifier
from sppnet.classify.options import ClassifierOptions
from sppnet.classify.result import ClassificationResult

__all__ = ["ClassificationResult", "Classifier", "ClassifierOptions"]

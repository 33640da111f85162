"""The estimator protocol: parameters, fit, predict, evaluate, save and load."""

from sppnet.estimators.base import Estimator, fresh_fit
from sppnet.estimators.registry import load
from sppnet.estimators.results import FailedPrediction, PredictionResult, PredictionsError
from sppnet.estimators.state import SavedState
from sppnet.estimators.tensors import TensorSpec

__all__ = [
    "Estimator",
    "FailedPrediction",
    "PredictionResult",
    "PredictionsError",
    "SavedState",
    "TensorSpec",
    "fresh_fit",
    "load",
]

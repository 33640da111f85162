"""Linear models, a small MLP and calibration, fitted to features: matrices in, matrices out.

Shapes: `N` samples, `D` length of a feature vector, `K` classes, `T` regression targets.
"""

from sppnet.learn.calibration import fit_sigmoid
from sppnet.learn.linear import LinearModel, one_versus_rest
from sppnet.learn.mlp import MLP, MLPOptions, fit_mlp
from sppnet.learn.negatives import NegativeCache, NegativeRule
from sppnet.learn.ridge import fit_ridge
from sppnet.learn.svm import SvmOptions, fit_linear_svm

__all__ = [
    "MLP",
    "MLPOptions",
    "LinearModel",
    "NegativeCache",
    "NegativeRule",
    "SvmOptions",
    "fit_mlp",
    "fit_linear_svm",
    "fit_ridge",
    "fit_sigmoid",
    "one_versus_rest",
]

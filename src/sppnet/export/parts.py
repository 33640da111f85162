"""The parameters and tensors of fitted estimators that an export needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sppnet.backbones import Backbone
from sppnet.errors import UserError

if TYPE_CHECKING:
    from sppnet.classify import Classifier
    from sppnet.detect import Detector

Matrix: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """A linear model of weight ``[K, D]`` and bias ``[K]``."""

    weight: Matrix
    bias: Matrix


@dataclass(frozen=True)
class FeatureParts:
    """A feature extractor.

    Attributes:
        backbone: the loaded backbone, not the copy with an optimised memory layout.
        scales: short sides to which images are resized, ascending; 0 keeps their own size.
        long_side: limit of the resized long side; None for no limit.
        levels: bins along each side of each level.
        mode: ``max`` or ``mean``.
    """

    backbone: Backbone
    scales: tuple[int, ...]
    long_side: int | None
    levels: tuple[int, ...]
    mode: str = "max"


@dataclass(frozen=True)
class ClassifierParts:
    """A classifier: features, normalisation, SVMs and calibration ``[2]``."""

    features: FeatureParts
    normalise: bool
    flip: bool
    names: tuple[str, ...]
    svm: Linear
    calibration: Matrix


@dataclass(frozen=True)
class RegressionParts:
    """Box regression on projected, mean-pooled maps.

    Attributes:
        rounds: number of refinements of a box.
        levels: bins along each side of each level.
        means: ``[C]`` per layer.
        bases: ``[C, P]`` per layer, P the length of the projection.
        linear: ``4 K`` deltas.
        hidden: the first layer of the IoU head; None without one.
        last: the second layer of the IoU head, ``5 K``: deltas and a logit per class.
    """

    rounds: int
    levels: tuple[int, ...]
    means: tuple[Matrix, ...]
    bases: tuple[Matrix, ...]
    linear: Linear
    hidden: Linear | None
    last: Linear | None


@dataclass(frozen=True)
class DetectorParts:
    """A detector.

    Attributes:
        features: the feature extractor, of one scale.
        names: the K class names.
        shapes: shapes of dense windows, ``[S, 2]``; None if boxes are an input.
        window_step: step of dense windows.
        windows: largest number of dense windows per image.
        svm: the SVMs of the K classes.
        regression: the box regression; None without.
        calibration: ``[K, 2]``, slope and offset per class.
        candidates: lowest score, IoU of near-duplicates, and numbers of windows before and after their
            removal per class.
        iou_weight: weight of the logit of the IoU, relative to the decision score.
        nms, vote: IoU of duplicates and of voting boxes.
        per_class: largest number of detections per class.
        same_box, inside: IoU and IoA from which two detections are of the same object.
    """

    features: FeatureParts
    names: tuple[str, ...]
    shapes: Matrix | None
    window_step: float
    windows: int
    svm: Linear
    regression: RegressionParts | None
    calibration: Matrix
    candidates: tuple[float, float, int, int]
    iou_weight: float
    nms: float
    vote: float
    per_class: int
    same_box: float
    inside: float


def estimator_parts(estimator: object) -> ClassifierParts | DetectorParts:
    """Return the parts of an estimator.

    Raises:
        UserError: the estimator is of another class or not fitted.
    """
    from sppnet.classify import Classifier
    from sppnet.detect import Detector

    if isinstance(estimator, Detector):
        return detector_parts(estimator)
    if isinstance(estimator, Classifier):
        return classifier_parts(estimator)
    raise UserError("estimator", "a Detector or a Classifier", type(estimator).__name__)


def classifier_parts(estimator: Classifier) -> ClassifierParts:
    """Return the parts of a fitted `sppnet.Classifier`."""
    if not hasattr(estimator, "svm_"):
        raise UserError("Classifier", "a fitted classifier", "an unfitted one", "Call fit or load first.")
    options = estimator.options
    scales = tuple(sorted(set(options.scales or (0,))))
    features = FeatureParts(estimator.backbone_, scales, options.long_side, options.levels)
    return ClassifierParts(
        features,
        options.normalise,
        options.flip,
        estimator.names_,
        _linear(estimator.svm_),
        _array(estimator.calibration_),
    )


def detector_parts(estimator: Detector) -> DetectorParts:
    """Return the parts of a fitted `sppnet.Detector`."""
    from sppnet.detect import candidates as thinning
    from sppnet.detect import postprocess

    if not hasattr(estimator, "heads_"):
        raise UserError("Detector", "a fitted detector", "an unfitted one", "Call fit or load first.")
    options, heads = estimator.options, estimator.heads_
    return DetectorParts(
        features=FeatureParts(estimator.backbone_, (options.short_side,), options.long_side, options.levels),
        names=estimator.names_,
        shapes=None if estimator.proposals_ is not None else _array(estimator.shapes_),
        window_step=options.window_step,
        windows=options.windows,
        svm=_linear(heads.svm),
        regression=_regression(estimator) if options.regressions else None,
        calibration=_array(heads.calibration),
        candidates=(thinning.LEAST_SCORE, thinning.NMS, thinning.BEST, thinning.KEPT),
        iou_weight=postprocess.IOU_WEIGHT,
        nms=options.nms,
        vote=options.vote,
        per_class=options.per_class,
        same_box=postprocess.SAME_BOX,
        inside=postprocess.INSIDE,
    )


def _regression(estimator: Detector) -> RegressionParts:
    from sppnet.detect.regression import BINS

    regressors = estimator.heads_.regressors
    head = regressors.iou_head
    return RegressionParts(
        rounds=estimator.options.regressions,
        levels=BINS,
        means=tuple(_array(mean) for mean in regressors.projection.means),
        bases=tuple(_array(basis) for basis in regressors.projection.bases),
        linear=_linear(regressors.model),
        hidden=None if head is None else _linear(head.first),
        last=None if head is None else _linear(head.second),
    )


def _linear(model: object) -> Linear:
    return Linear(_array(getattr(model, "weight")), _array(getattr(model, "bias")))  # noqa: B009


def _array(tensor: object) -> Matrix:
    from torch import Tensor

    assert isinstance(tensor, Tensor)
    return tensor.detach().cpu().float().numpy()

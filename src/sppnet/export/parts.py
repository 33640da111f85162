"""Parameters of fitted estimators for an export; the only module that reads their attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sppnet.backbones import Backbone
from sppnet.errors import UserError

if TYPE_CHECKING:
    from sppnet.classify import Classifier
    from sppnet.detect import Detector, DetectorOptions

Matrix: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """Weight ``[K, D]`` and bias ``[K]`` of linear functions."""

    weight: Matrix
    bias: Matrix


@dataclass(frozen=True)
class FeatureParts:
    """A feature extractor.

    Attributes:
        backbone: the loaded backbone, not the copy prepared for inference.
        scales: short sides to which images are resized, ascending; 0 for the size of the image.
        long_side: maximum long side after resizing; None for no limit.
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
    """A classifier: features, their normalisation, SVMs and calibration ``[2]``."""

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
        rounds: number of regressions of a box.
        levels: bins along each side of each level.
        means: ``[C]`` per layer.
        bases: ``[C, P]`` per layer.
        linear: linear functions of ``4 K`` deltas.
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
        features: the feature extractor, with one scale.
        names: K class names.
        shapes: ``[S, 2]`` of dense windows; None if boxes are given with each image.
        window_step: stride of dense windows, in units of their sides.
        windows: maximum number of dense windows per image.
        svm: linear functions of the decision scores of K classes.
        regression: box regression; None without it.
        calibration: ``[K, 2]``.
        candidates: minimum score, IoU of near-duplicates, and numbers of candidates per class before and
            after their suppression.
        candidates_per_image: maximum number of candidates; 0 for no limit.
        iou_weight: weight of the IoU logit in a decision score.
        nms, vote: minimum IoU of duplicates and of voting boxes.
        per_class: maximum number of detections per class.
        same_box, inside: minimum IoU and IoA of two detections of the same object.
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
    candidates_per_image: int
    iou_weight: float
    nms: float
    vote: float
    per_class: int
    same_box: float
    inside: float


def estimator_parts(estimator: object) -> ClassifierParts | DetectorParts:
    """Return the parameters of an estimator.

    Raises:
        UserError: the estimator has another class or is not fitted.
    """
    from sppnet.classify import Classifier
    from sppnet.detect import Detector

    if isinstance(estimator, Detector):
        return detector_parts(estimator)
    if isinstance(estimator, Classifier):
        return classifier_parts(estimator)
    raise UserError("estimator", "a Detector or a Classifier", type(estimator).__name__)


def classifier_parts(estimator: Classifier) -> ClassifierParts:
    """Return the parameters of a fitted `sppnet.Classifier`."""
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
    """Return the parameters of a fitted `sppnet.Detector`.

    Raises:
        UserError: the detector is not fitted, or an option is not supported by exports.
    """
    if not hasattr(estimator, "heads_"):
        raise UserError("Detector", "a fitted detector", "an unfitted one", "Call fit or load first.")
    options, heads = estimator.options, estimator.heads_
    _check_exportable(options)
    sides, post = options.map.sides, options.post
    features = FeatureParts(
        estimator.backbone_, sides or (0,), options.map.long_side or None, options.pool.levels
    )
    return DetectorParts(
        features=features,
        names=estimator.names_,
        shapes=None if options.window.proposals is not None else _array(estimator.shapes_),
        window_step=options.window.window_step,
        windows=options.window.windows,
        svm=_linear(heads.svm),
        regression=_regression(estimator),
        calibration=_array(heads.calibration),
        candidates=(post.score_above, post.thinning, post.best, post.candidates or post.per_class),
        candidates_per_image=post.candidates_per_image,
        iou_weight=post.iou_weight,
        nms=post.nms,
        vote=post.vote,
        per_class=post.per_class,
        same_box=post.same_box,
        inside=post.inside,
    )


def _check_exportable(options: DetectorOptions) -> None:
    """Raise `UserError` for options that exported graphs do not support."""
    refused = (
        ("pipeline", options.pool.pipeline, "spp"),
        ("cells", options.pool.cells, "centre"),
        ("features", options.fc.features, "pool"),
        ("source", options.window.source, "dense"),
        ("scales", options.map.scales, ()),
        ("tile", options.map.tile, 0),
        ("rescored", options.post.rescored, True),
    )
    for name, value, expected in refused:
        if value != expected:
            raise UserError(f"options.{name}", f"{expected!r} for an export", repr(value))
    if not options.post.best:
        raise UserError("options.best", "at least 1 for an export", options.post.best)


def _regression(estimator: Detector) -> RegressionParts | None:
    from sppnet.detect.boxes import ProjectedRegressors

    regressors = estimator.heads_.boxes
    if regressors is None or not estimator.options.post.regressions:
        return None
    if not isinstance(regressors, ProjectedRegressors):
        expected = "regression='projected' or 'none' for an export"
        raise UserError("options.regression", expected, repr(estimator.options.box.regression))
    head = regressors.iou_head
    return RegressionParts(
        rounds=estimator.options.post.regressions,
        levels=regressors.bins,
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

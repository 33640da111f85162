"""What an export needs of fitted estimators: the one place that knows their attributes."""

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
    """weight ``[K, D]`` and bias ``[K]``."""

    weight: Matrix
    bias: Matrix


@dataclass(frozen=True)
class FeatureParts:
    """A feature extractor.

    Attributes:
        backbone: as it was loaded, not the copy laid out for speed.
        scales: short sides that images are resized to, ascending; 0 keeps their own size.
        long_side: limit of the resized long side; None sets none.
        levels: bins a side of each level.
        mode: ``max`` or ``mean``.
    """

    backbone: Backbone
    scales: tuple[int, ...]
    long_side: int | None
    levels: tuple[int, ...]
    mode: str = "max"


@dataclass(frozen=True)
class ClassifierParts:
    """A classifier: features, how they are normalised, SVMs and calibration ``[2]``."""

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
        rounds: how often a box is moved.
        levels: bins a side of each level.
        means: ``[C]`` a layer.
        bases: ``[C, P]`` a layer.
        linear: ``4 K`` deltas.
        hidden: the first layer of the IoU head; None without one.
        last: its second layer, ``5 K``: deltas and a logit for each class.
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
        features: one scale.
        names: of the K classes.
        shapes: ``[S, 2]`` of dense windows; None where boxes are given with each image.
        window_step: of dense windows.
        windows: dense windows an image.
        svm: decision scores of the K classes.
        regression: None where windows stay as they are.
        calibration: ``[K, 2]``.
        candidates: least score, IoU of near-duplicates, windows looked at and kept of a class.
        candidates_per_image: maximum number of candidates; 0 for no limit.
        iou_weight: of the IoU's logit beside a decision score.
        nms, vote: IoU of duplicates and of voters.
        per_class: detections of a class.
        same_box, inside: IoU and IoA from which two detections are one object's.
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
    """The parts of any estimator that can be exported.

    Raises:
        UserError: an estimator of another class, or one that is not fitted.
    """
    from sppnet.classify import Classifier
    from sppnet.detect import Detector

    if isinstance(estimator, Detector):
        return detector_parts(estimator)
    if isinstance(estimator, Classifier):
        return classifier_parts(estimator)
    raise UserError("estimator", "a Detector or a Classifier", type(estimator).__name__)


def classifier_parts(estimator: Classifier) -> ClassifierParts:
    """The parts of a fitted `sppnet.Classifier`."""
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
    """The parts of a fitted `sppnet.Detector`.

    Raises:
        UserError: an unfitted detector, or options that have no ONNX form.
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
    """Raise `UserError` for options that only some presets have and the graph lacks."""
    refused = (
        ("pipeline", options.pool.pipeline, "spp"),
        ("cells", options.pool.cells, "centre"),
        ("features", options.fc.features, "pool"),
        ("source", options.window.source, "dense"),
        ("scales", options.map.scales, ()),
        ("tile", options.map.tile, 0),
        ("rescored", options.post.rescored, True),
    )
    for name, value, wanted in refused:
        if value != wanted:
            raise UserError(f"options.{name}", f"{wanted!r} for an export", repr(value))
    if not options.post.best:
        raise UserError("options.best", "at least 1 for an export", options.post.best)


def _regression(estimator: Detector) -> RegressionParts | None:
    from sppnet.detect.boxes import ProjectedRegressors

    regressors = estimator.heads_.boxes
    if regressors is None or not estimator.options.post.regressions:
        return None
    if not isinstance(regressors, ProjectedRegressors):
        wanted = "regression='projected' or 'none' for an export"
        raise UserError("options.regression", wanted, repr(estimator.options.box.regression))
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

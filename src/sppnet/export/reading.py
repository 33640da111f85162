"""From fitted estimators to what an export needs of them: the one place that knows their attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor

from sppnet.errors import UserError
from sppnet.export.parts import (
    AnyParts,
    CellParts,
    ClassifierParts,
    DetectorParts,
    FcParts,
    FeatureParts,
    Linear,
    Matrix,
    NetworkParts,
    PooledParts,
    PostParts,
    ProjectedParts,
    ViewParts,
    WindowParts,
)

if TYPE_CHECKING:
    from sppnet.classify import Classifier, NetworkClassifier
    from sppnet.detect import Detector, DetectorOptions


def estimator_parts(estimator: object) -> AnyParts:
    """The parts of any estimator that can be exported.

    Raises:
        UserError: an estimator of another class, one that is not fitted, or options without an ONNX form.
    """
    from sppnet.classify import Classifier, NetworkClassifier
    from sppnet.detect import Detector

    if isinstance(estimator, Detector):
        return _detector_parts(estimator)
    if isinstance(estimator, Classifier):
        return _classifier_parts(estimator)
    if isinstance(estimator, NetworkClassifier):
        return _network_parts(estimator)
    raise UserError("estimator", "a Detector or a classifier", type(estimator).__name__)


def _classifier_parts(estimator: Classifier) -> ClassifierParts:
    _check_fitted(estimator, "svm_")
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


def _network_parts(estimator: NetworkClassifier) -> NetworkParts:
    from torch import nn

    from sppnet.classify.network import LastPool
    from sppnet.classify.samples import LONGEST_SHAPE

    _check_fitted(estimator, "network_")
    network, views = estimator.network_, estimator.test_views()
    views.check()
    pool = network.pool
    last_pool = None
    if isinstance(pool, LastPool):
        last_pool = cast("tuple[int, int]", (pool.pool.kernel_size, pool.pool.stride))
        if views.full is not None or views.how == "maps":
            raise UserError("views", "views by crops only, for a network without pyramid pooling", views.how)
    scales = (views.full,) if views.full is not None else views.scales
    features = FeatureParts(
        network.backbone,
        tuple(sorted(set(scales))),
        None,
        network.options.pyramid,
        antialias=True,
        longest_shape=LONGEST_SHAPE,
    )
    layers = tuple(_linear(layer) for layer in network.head if isinstance(layer, nn.Linear))
    crops = views.how == "crops"
    view_parts = ViewParts(views.scales, views.side, views.positions, views.flip, views.full, crops)
    return NetworkParts(features, last_pool, layers, estimator.names_, view_parts)


def _detector_parts(estimator: Detector) -> DetectorParts:
    _check_fitted(estimator, "heads_")
    options, heads = estimator.options, estimator.heads_
    _check_exportable(options)
    maps = options.map
    features = FeatureParts(
        estimator.backbone_,
        maps.sides or (0,),
        maps.long_side or None,
        options.pool.levels,
        rounded=maps.rounded,
    )
    return DetectorParts(
        features=features,
        names=estimator.names_,
        cells=_cells(estimator),
        windows=_windows(estimator),
        fc=_fully_connected(estimator),
        svm=_linear(heads.svm),
        regression=_regression(estimator),
        calibration=_array(heads.calibration),
        post=_post(options),
    )


def _check_fitted(estimator: object, attribute: str) -> None:
    if not hasattr(estimator, attribute):
        where = type(estimator).__name__
        raise UserError(where, "a fitted estimator", "an unfitted one", "Call fit or load first.")


def _check_exportable(options: DetectorOptions) -> None:
    """Raise `UserError` for options that the graph lacks."""
    if options.pool.pipeline == "rcnn":
        hint = "R-CNN runs its network once per proposal; fit with pipeline='spp' to export."
        raise UserError("options.pipeline", "'spp' for an export", "'rcnn'", hint)
    if options.map.tile:
        hint = "Set options.tile=0 and run the exported file on each tile."
        raise UserError("options.tile", "0 for an export", options.map.tile, hint)


def _cells(estimator: Detector) -> CellParts:
    from sppnet.detect.cells import target_sides

    pool, several = estimator.options.pool, len(estimator.options.map.sides or (0,)) > 1
    sides: tuple[float, ...] = ()
    if pool.cells == "release" and several:
        found = target_sides(estimator.network_)
        sides = tuple(found[layer.name] for layer in estimator.backbone_.layers)
    return CellParts(pool.cells, pool.release_offset, sides)


def _windows(estimator: Detector) -> WindowParts:
    window = estimator.options.window
    source = "a proposals file" if window.proposals is not None else window.source
    shapes = _array(estimator.shapes_) if source == "dense" else None
    return WindowParts(shapes, window.window_step, window.windows, "" if source == "dense" else source)


def _fully_connected(estimator: Detector) -> FcParts | None:
    head, features = estimator.heads_.fc, estimator.options.fc.features
    if head is None:
        return None
    layers = [_linear(head.fc6)] + ([_linear(head.fc7)] if features == "fc7" else [])
    return FcParts(float(head.scale), tuple(layers))


def _regression(estimator: Detector) -> ProjectedParts | PooledParts | None:
    from sppnet.detect.boxes import ProjectedRegressors
    from sppnet.detect.pooled_boxes import PooledRegressors

    regressors = estimator.heads_.boxes
    if regressors is None or not estimator.options.post.regressions:
        return None
    if isinstance(regressors, PooledRegressors):
        return PooledParts(_linear(regressors.model))
    assert isinstance(regressors, ProjectedRegressors)
    head = regressors.iou_head
    return ProjectedParts(
        levels=regressors.bins,
        means=tuple(_array(mean) for mean in regressors.projection.means),
        bases=tuple(_array(basis) for basis in regressors.projection.bases),
        linear=_linear(regressors.model),
        hidden=None if head is None else _linear(head.first),
        last=None if head is None else _linear(head.second),
    )


def _post(options: DetectorOptions) -> PostParts:
    post = options.post
    return PostParts(
        least=post.score_above,
        thinning=post.thinning,
        best=post.best,
        candidates=post.candidates or post.per_class,
        candidates_per_image=post.candidates_per_image,
        regressions=post.regressions,
        rescored=post.rescored,
        iou_weight=post.iou_weight,
        nms=post.nms,
        vote=post.vote,
        per_class=post.per_class,
        threshold=post.threshold,
        same_box=post.same_box,
        inside=post.inside,
    )


def _linear(model: object) -> Linear:
    return Linear(_array(getattr(model, "weight")), _array(getattr(model, "bias")))  # noqa: B009


def _array(tensor: object) -> Matrix:
    assert isinstance(tensor, Tensor)
    return tensor.detach().cpu().float().numpy()

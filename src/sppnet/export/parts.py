"""What an export needs of fitted estimators: plain values, without their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sppnet.backbones import Backbone

Matrix: TypeAlias = NDArray[np.float32]
Positions: TypeAlias = Literal["none", "centre", "five", "nine"]


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
        antialias: average the pixels that shrinking skips.
        longest_shape: ratio of the sides to which longer images are squeezed; None sets none.
        rounded: round maps to bfloat16.
    """

    backbone: Backbone
    scales: tuple[int, ...]
    long_side: int | None
    levels: tuple[int, ...]
    mode: str = "max"
    antialias: bool = False
    longest_shape: int | None = None
    rounded: bool = False


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
class ViewParts:
    """The views of an image whose probabilities are averaged; see `sppnet.classify.views.ViewOptions`."""

    scales: tuple[int, ...]
    side: int
    positions: Positions
    flip: bool
    full: int | None
    by_crops: bool


@dataclass(frozen=True)
class NetworkParts:
    """A network that was trained end to end.

    Attributes:
        features: the convolutions, and the pyramid of the pooling layer.
        last_pool: size and stride of the max pool of a network without pyramid pooling.
        layers: the fully connected layers; all but the last are rectified.
        names: of the K classes.
        views: of an image.
    """

    features: FeatureParts
    last_pool: tuple[int, int] | None
    layers: tuple[Linear, ...]
    names: tuple[str, ...]
    views: ViewParts


@dataclass(frozen=True)
class CellParts:
    """From boxes to cells: the rule, and what the rule of the release depends on.

    Attributes:
        rule: ``centre``, ``paper`` or ``release``.
        offset: pixels by which boxes shrink (release).
        sides: for each layer, the side that the release wants boxes to have; empty for one scale.
    """

    rule: Literal["centre", "paper", "release"] = "centre"
    offset: float = 0.0
    sides: tuple[float, ...] = ()


@dataclass(frozen=True)
class FcParts:
    """Fully connected layers between pooled features and the SVMs, and the factor of their input."""

    scale: float
    layers: tuple[Linear, ...]


@dataclass(frozen=True)
class ProjectedParts:
    """Box regression on projected, mean-pooled maps.

    Attributes:
        levels: bins a side of each level.
        means: ``[C]`` a layer.
        bases: ``[C, P]`` a layer.
        linear: ``4 K`` deltas.
        hidden: the first layer of the IoU head; None without one.
        last: its second layer, ``5 K``: deltas and a logit for each class.
    """

    levels: tuple[int, ...]
    means: tuple[Matrix, ...]
    bases: tuple[Matrix, ...]
    linear: Linear
    hidden: Linear | None
    last: Linear | None


@dataclass(frozen=True)
class PooledParts:
    """Box regression on pooled features: ``4 K`` deltas."""

    linear: Linear


@dataclass(frozen=True)
class WindowParts:
    """Proposals of an image.

    Attributes:
        shapes: ``[S, 2]`` of dense windows; None where boxes are given with each image.
        step: of dense windows.
        most: dense windows an image.
        source: where boxes come from that are given with each image, in words.
    """

    shapes: Matrix | None
    step: float
    most: int
    source: str = ""


@dataclass(frozen=True)
class PostParts:
    """From decision scores to detections.

    Attributes:
        least: minimum decision score of candidates.
        thinning: IoU of near-duplicates among candidates.
        best: maximum number of candidates per class before near-duplicates are dropped; 0 for all.
        candidates: maximum number of candidates per class.
        candidates_per_image: maximum number of candidates over all classes; 0 for no limit.
        regressions: number of refinements of a box.
        rescored: score boxes again after they are refined.
        iou_weight: weight of the IoU logit in the score.
        nms, vote: minimum IoU of duplicates and of voting boxes.
        per_class: maximum number of detections per class.
        threshold: minimum probability of detections.
        same_box, inside: minimum IoU and IoA of two detections of the same object.
    """

    least: float
    thinning: float
    best: int
    candidates: int
    candidates_per_image: int
    regressions: int
    rescored: bool
    iou_weight: float
    nms: float
    vote: float
    per_class: int
    threshold: float
    same_box: float
    inside: float


@dataclass(frozen=True)
class DetectorParts:
    """A detector.

    Attributes:
        features: maps and pyramid.
        names: K class names.
        cells: from boxes to cells.
        windows: proposals.
        fc: fully connected layers before the SVMs; None if the SVMs use pooled features.
        svm: linear functions of the decision scores of K classes.
        regression: box regression; None without it.
        calibration: ``[K, 2]``.
        post: from decision scores to detections.
    """

    features: FeatureParts
    names: tuple[str, ...]
    cells: CellParts
    windows: WindowParts
    fc: FcParts | None
    svm: Linear
    regression: ProjectedParts | PooledParts | None
    calibration: Matrix
    post: PostParts


AnyParts: TypeAlias = ClassifierParts | NetworkParts | DetectorParts

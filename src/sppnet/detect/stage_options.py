"""One dataclass of options per stage of a detector, with tables of legal ranges.

Names of fields are unique over all stages, so that options can be given by name. The defaults are those of
the preset fast; see `sppnet.detect.DetectorOptions` for the presets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sppnet.detect.ranges import ABOVE_0, AT_LEAST_0, AT_LEAST_1, BELOW_1, IOU, SHARE, Range, check_ranges
from sppnet.errors import UserError


@dataclass(frozen=True)
class TargetOptions:
    """Options of the training targets of the SVMs (He et al. 2015, section 4.1).

    Attributes:
        positives: ``"objects"``: boxes of objects only, as in the paper; ``"windows"``: also proposals with
            an IoU of at least ``positive_iou``.
        positive_iou: minimum IoU of positive proposals with an object.
        negative_iou: proposals with lower IoU with all objects of a class are its negatives.
        difficult: use objects marked difficult as positives, as in the release; otherwise they are ignored.
        crowd_share: minimum fraction of a proposal inside a crowd for which it is not a negative.
        positives_per_object: maximum number of proposals per object in the sample.
        flip_below: number of objects below which flipped images are used too; 0 for objects that are not
            invariant to flips, such as letters.

    Examples:
        >>> TargetOptions(negative_iou=0.3).positives
        'windows'
    """

    positives: Literal["windows", "objects"] = "windows"
    positive_iou: float = 0.6
    negative_iou: float = 0.3
    difficult: bool = False
    crowd_share: float = 0.5
    positives_per_object: int = 4
    flip_below: int = 1000

    def check(self) -> None:
        """Raise `UserError` for the first value that is out of range."""
        check_ranges(self, TARGET_RANGES)


TARGET_RANGES: Mapping[str, Range] = {
    "positive_iou": IOU,
    "negative_iou": IOU,
    "crowd_share": SHARE,
    "positives_per_object": AT_LEAST_1,
    "flip_below": AT_LEAST_0,
}


@dataclass(frozen=True)
class SvmOptions:
    """Options of SVMs and hard negatives (He et al. 2015, section 4.1).

    Attributes:
        mining: ``"rounds"``: fit on a sample of all images, add the hard negatives of all images, fit again;
            ``"images"``: image by image, as in the paper, with a cache of negatives per class.
        negatives: rule of duplicate negatives: IoU above ``alike`` (``"paper"``), or equal cells at the same
            scale (``"release"``; for ``mining="images"``).
        alike: IoU above which two negatives are duplicates.
        C: cost of a unit of loss, for features of mean norm ``mean_norm``.
        loss: ``"squared_hinge"``, or ``"hinge"`` as in the paper.
        positive_weight: factor of the cost of errors on objects.
        bias_feature: the constant feature whose weight is the bias.
        tolerance: relative error of the weights.
        mean_norm: mean norm to which features are scaled before fitting.
        mining_rounds: rounds of mining over all images.
        mining_step: each round scores every n-th proposal, and successive rounds different ones (rounds).
        rows: maximum number of training features (rounds); bounds the memory of fitting.
        hard_share: fraction of ``rows`` that is reserved for hard negatives if the sample does not fit.
        random_negatives: negatives per image in the first sample (rounds).
        hard_per_class: hard negatives per image, class and round (rounds).
        add_above: minimum decision score of hard negatives.
        evict_below: after a fit, negatives with a lower decision score are removed (images).
        refit_after: number of added negatives of a class after which its SVM is refitted (images).
        enough_news: a round that adds a smaller fraction of the features is the last one (rounds).
        negatives_mb: maximum memory of the negatives of all classes (images).

    Examples:
        >>> SvmOptions(C=0.01).mining
        'rounds'
    """

    mining: Literal["rounds", "images"] = "rounds"
    negatives: Literal["paper", "release"] = "paper"
    alike: float = 0.7
    C: float = 1e-3
    loss: Literal["squared_hinge", "hinge"] = "squared_hinge"
    positive_weight: float = 2.0
    bias_feature: float = 10.0
    tolerance: float = 0.03
    mean_norm: float = 20.0
    mining_rounds: int = 2
    mining_step: int = 2
    rows: int = 30000
    hard_share: float = 0.25
    random_negatives: int = 40
    hard_per_class: int = 15
    add_above: float = -1.0
    evict_below: float = -1.2
    refit_after: int = 2000
    enough_news: float = 0.002
    negatives_mb: int = 1000

    def check(self) -> None:
        """Raise `UserError` for the first value that is out of range."""
        check_ranges(self, SVM_RANGES)
        if self.mining == "images" and self.mining_rounds < 1:
            raise UserError("options.mining_rounds", "at least 1 with mining by images", self.mining_rounds)


SVM_RANGES: Mapping[str, Range] = {
    "alike": IOU,
    "C": ABOVE_0,
    "positive_weight": ABOVE_0,
    "bias_feature": AT_LEAST_0,
    "tolerance": BELOW_1,
    "mean_norm": ABOVE_0,
    "mining_rounds": AT_LEAST_0,
    "mining_step": AT_LEAST_1,
    "rows": (lambda value: value >= 100, "at least 100"),
    "hard_share": BELOW_1,
    "random_negatives": AT_LEAST_1,
    "hard_per_class": AT_LEAST_1,
    "refit_after": AT_LEAST_1,
    "enough_news": AT_LEAST_0,
    "negatives_mb": AT_LEAST_1,
}


@dataclass(frozen=True)
class BoxOptions:
    """Options of bounding box regression (He et al. 2015, section 4.1).

    Attributes:
        regression: ``"projected"``: on mean-pooled maps of few channels; ``"pooled"``: on the pooled features
            of the pyramid, with whitened targets, as in the paper; ``"none"``: no regression.
        ridge: the penalty, for features of mean norm ``mean_norm``.
        above_iou: minimum IoU with an object of the proposals that train the regressor of its class.
        box_channels: channels of a projected map.
        box_bins: bins along each side of each level.
        box_cells: number of cells from which the projection is learned.
        boxes_per_object: maximum number of proposals per object (projected).
        boxes_mb: maximum memory of the features of one class; a random subset is used beyond it (pooled).
        boxes_used: maximum total number of proposals (projected).

    Examples:
        >>> BoxOptions(regression="pooled").ridge > 0
        True
    """

    regression: Literal["projected", "pooled", "none"] = "projected"
    ridge: float = 1000.0
    above_iou: float = 0.5
    box_channels: int = 32
    box_bins: tuple[int, ...] = (6,)
    box_cells: int = 60_000
    boxes_per_object: int = 8
    boxes_used: int = 30_000
    boxes_mb: int = 800

    def check(self) -> None:
        """Raise `UserError` for the first value that is out of range."""
        check_ranges(self, BOX_RANGES)


BOX_RANGES: Mapping[str, Range] = {
    "ridge": ABOVE_0,
    "above_iou": (lambda value: 0 <= value < 1, "an IoU below 1"),
    "box_channels": AT_LEAST_1,
    "box_bins": (lambda value: min(value, default=0) >= 1, "whole numbers of at least 1"),
    "box_cells": AT_LEAST_1,
    "boxes_per_object": AT_LEAST_1,
    "boxes_used": AT_LEAST_1,
    "boxes_mb": AT_LEAST_1,
}

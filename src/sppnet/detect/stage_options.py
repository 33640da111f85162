"""One dataclass of options per stage of a detector, each with its legal ranges beside it.

The names of fields differ between stages, so that every option can be given by its name alone. The defaults
are those of the fast detector; `sppnet.detect.DetectorOptions` has the presets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sppnet.detect.ranges import ABOVE_0, AT_LEAST_0, AT_LEAST_1, BELOW_1, IOU, SHARE, Range, check_ranges
from sppnet.errors import UserError


@dataclass(frozen=True)
class MapOptions:
    """From an image to feature maps (sections 2.2 and 4.1).

    Attributes:
        layers: the layers that are pooled, by the network's names for them or as ``stride8`` and
            ``stride16``; the network's default when None.
        mean_pixel: constant that is subtracted from all channels of an image in 0..255, in place of the
            network's own mean; the paper's is 128 for VOC 2007 and Caltech101 (appendix A).
        short_side: images are resized to this short side, in pixels; 0 keeps their own size.
        scales: several short sides in place of ``short_side``; the paper's are 480, 576, 688, 864 and 1200.
        long_side: limit of the long side after resizing, in pixels; 0 sets none.
        largest: maximum number of pixels of a resized image where ``long_side`` sets no limit; a larger one
            is refused, as a smaller scale would change the results.
        rounded: predict on maps rounded to bfloat16 too, as those of the training images are.
        tile: images are cut into tiles of at most this side, in pixels, each treated as an image of its own,
            in fitting and prediction; 0 takes images whole.
        overlap: share of a tile that the next one repeats.
    """

    layers: tuple[str, ...] | None = None
    mean_pixel: float | None = None
    short_side: int = 480
    scales: tuple[int, ...] = ()
    long_side: int = 1333
    largest: int = 16_000_000
    rounded: bool = False
    tile: int = 0
    overlap: float = 0.2

    @property
    def sides(self) -> tuple[int, ...] | None:
        """The short sides that images are resized to, ascending; None for their own size."""
        if self.scales:
            return tuple(sorted(set(self.scales)))
        return (self.short_side,) if self.short_side else None

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        check_ranges(self, MAP_RANGES)


MAP_RANGES: Mapping[str, Range] = {
    "layers": (lambda value: value is None or len(value) > 0, "at least one layer"),
    "mean_pixel": (lambda value: value is None or 0 <= value <= 255, "a pixel value, 0 to 255"),
    "short_side": (lambda value: value == 0 or value >= 16, "0, or at least 16 pixels"),
    "scales": (lambda value: min(value, default=16) >= 16, "sides of at least 16"),
    "long_side": (lambda value: value == 0 or value >= 16, "0, or at least 16 pixels"),
    "tile": (lambda value: value == 0 or value >= 32, "0, or at least 32 pixels"),
    "overlap": (lambda value: 0 <= value <= 0.9, "a share from 0 to 0.9"),
    "largest": (lambda value: value >= 256, "at least 256 pixels"),
}


@dataclass(frozen=True)
class PoolOptions:
    """From proposals to features (sections 2.2 and 4.1, appendix A).

    Attributes:
        pipeline: ``"spp"``: convolve the image, then pool proposals; ``"rcnn"``: crop proposals, then
            convolve each.
        levels: bins along each side of each level of the pyramid.
        cells: the rule for the cells of a proposal: ``"centre"``, a cell belongs to the proposal that its
            centre lies in; that of the ``"paper"`` (appendix A) or of its ``"release"``, with its scale.
        release_offset: pixels of the network's input by which proposals shrink on each side (release).
        crop_side: pixels of a crop, height and width (R-CNN).
        crop_padding: pixels of context on each side of the proposal within the crop (R-CNN).
        crop_batch: crops that run through the network together (R-CNN).
        cache_mb: memory for cached maps and features; what is over it lies on disk.
    """

    pipeline: Literal["spp", "rcnn"] = "spp"
    levels: tuple[int, ...] = (3, 2, 1)
    cells: Literal["centre", "paper", "release"] = "centre"
    release_offset: float = 6.5
    crop_side: int = 227
    crop_padding: int = 16
    crop_batch: int = 256
    cache_mb: int = 1000

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        check_ranges(self, POOL_RANGES)
        if not 0 <= 2 * self.crop_padding < self.crop_side:
            wanted = f"at least 0 and less than half the side, {self.crop_side}"
            raise UserError("options.crop_padding", wanted, self.crop_padding)


POOL_RANGES: Mapping[str, Range] = {
    "levels": (lambda value: min(value, default=0) >= 1, "whole numbers of at least 1"),
    "crop_side": AT_LEAST_1,
    "crop_batch": AT_LEAST_1,
    "cache_mb": AT_LEAST_0,
}


@dataclass(frozen=True)
class WindowOptions:
    """Proposals of an image (section 4.1).

    Attributes:
        source: ``"dense"``, ``"selective-search"`` or ``"edge-boxes"``.
        proposals: a file of boxes (.json, .csv, .mat, .parquet) in place of ``source``.
        edge_model: the structured edge model that OpenCV's EdgeBoxes needs, a .yml or .yml.gz file.
        windows: maximum number of proposals per image; of more, the first ones, or every n-th of unranked
            ones.
        window_step: dense windows move by this share of their sides.
        shapes: maximum number of shapes of dense windows.
    """

    source: Literal["dense", "selective-search", "edge-boxes"] = "dense"
    proposals: Path | None = None
    edge_model: Path | None = None
    windows: int = 8000
    window_step: float = 0.2
    shapes: int = 16

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range, or a file that is not there."""
        check_ranges(self, WINDOW_RANGES)
        if self.source == "edge-boxes" and not (self.edge_model or self.proposals):
            wanted = "the file of OpenCV's structured edge model, for EdgeBoxes"
            raise UserError("options.edge_model", wanted, "none")
        for name, file in (("proposals", self.proposals), ("edge_model", self.edge_model)):
            if file is not None and not file.is_file():
                raise UserError(file, f"a file, for options.{name}", "no such file")


WINDOW_RANGES: Mapping[str, Range] = {
    "windows": AT_LEAST_1,
    "window_step": (lambda value: 0 < value <= 2, "a share above 0, at most 2"),
    "shapes": AT_LEAST_1,
}


@dataclass(frozen=True)
class TargetOptions:
    """What proposals teach the SVMs (section 4.1).

    Attributes:
        positives: ``"objects"``: the objects' own boxes, as in the paper; ``"windows"``: also proposals from
            an IoU of ``positive_iou`` on.
        positive_iou: proposals from this IoU with an object on are its positives.
        negative_iou: proposals below this IoU with all objects of a class are its negatives.
        difficult: objects marked difficult are positives too, as in the release; otherwise they teach
            nothing.
        crowd_share: proposals of which this share lies in a crowd are no negatives.
        positives_per_object: maximum number of proposals on an object in the sample.
        flip_below: with fewer objects than this, images are also seen flipped left to right; 0 for objects
            that flipping makes into others, such as letters.
    """

    positives: Literal["windows", "objects"] = "windows"
    positive_iou: float = 0.6
    negative_iou: float = 0.3
    difficult: bool = False
    crowd_share: float = 0.5
    positives_per_object: int = 4
    flip_below: int = 1000

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
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
    """SVMs and their hard negatives (section 4.1).

    Attributes:
        mining: ``"rounds"``: fit on a sample of all images, add the hard negatives of all images, fit again;
            ``"images"``: image by image, as in the paper, with a cache of negatives for each class.
        negatives: of negatives that overlap by more than ``alike`` one is kept (``"paper"``); of those that
            cover the same cells at the same scale one is kept (``"release"``; for ``mining="images"``).
        alike: IoU above which two negatives are duplicates.
        C: cost of a unit of loss, for features of mean norm ``mean_norm``.
        loss: ``"squared_hinge"``, or the paper's ``"hinge"``.
        positive_weight: factor of the cost of errors on objects.
        bias_feature: the constant feature whose weight gives the bias.
        tolerance: relative error of the weights.
        mean_norm: mean norm to which features are scaled before fitting.
        mining_rounds: rounds over all images, in search of hard negatives.
        rows: maximum number of training features (rounds); bounds the memory of fitting.
        hard_share: share of ``rows`` that is kept free for hard negatives where the sample does not fit.
        random_negatives: negatives per image in the first sample (rounds).
        hard_per_class: hard negatives per image, class and round (rounds).
        add_above: negatives with a higher decision score are hard.
        evict_below: after a fit, negatives with a lower decision score are dropped (images).
        refit_after: added negatives of a class after which its SVM is fitted again (images).
        enough_news: a round that adds a smaller share of the features is the last (rounds).
        negatives_mb: memory of all classes' negatives together (images).
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
        """Raise `UserError` for the first value out of its range."""
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
    """Bounding box regression (section 4.1).

    Attributes:
        regression: ``"projected"``: on mean-pooled maps of few channels; ``"pooled"``: on the pooled features
            of the pyramid, with whitened targets, as in the paper; ``"none"`` leaves proposals as they are.
        ridge: the penalty, for features of mean norm ``mean_norm``.
        above_iou: proposals from this IoU with an object on train the regressor of its class.
        box_channels: channels of a projected map.
        box_bins: bins along each side of it.
        box_cells: cells from which the projection is learned.
        boxes_per_object: maximum number of proposals per object (projected).
        boxes_mb: memory of the features of one class; of more proposals a random subset is used (pooled).
        boxes_used: maximum number of proposals altogether (projected).
    """

    regression: Literal["projected", "pooled", "none"] = "projected"
    ridge: float = 1000.0
    above_iou: float = 0.5
    box_channels: int = 64
    box_bins: tuple[int, ...] = (6,)
    box_cells: int = 60_000
    boxes_per_object: int = 8
    boxes_used: int = 30_000
    boxes_mb: int = 800

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
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

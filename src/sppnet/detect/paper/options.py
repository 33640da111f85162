"""What can be chosen about the paper's detection, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sppnet.detect.rcnn import CropOptions
from sppnet.errors import UserError

Pipeline = Literal["spp", "rcnn"]
CellRule = Literal["paper", "release"]
Features = Literal["pool", "fc6", "fc7"]
Negatives = Literal["paper", "release"]


@dataclass(frozen=True)
class WindowOptions:
    """Which windows an image has (paper section 3.1).

    Attributes:
        source: ``"selective-search"``, ``"edge-boxes"`` or ``"dense"``.
        file: a file of boxes (.json, .csv, .mat, .parquet) in place of ``source``.
        edge_model: the structured edge model that OpenCV's EdgeBoxes needs, a .yml or .yml.gz file.
        most: windows an image, at most; of more, the first ones, or every n-th of unordered ones.
    """

    source: Literal["selective-search", "edge-boxes", "dense"] = "selective-search"
    file: Path | None = None
    edge_model: Path | None = None
    most: int = 2000


@dataclass(frozen=True)
class FinetuneOptions:
    """Training of the fully connected layers alone (paper section 3.5).

    Attributes:
        width: neurons of fc6 and of fc7 where none are given.
        weights: a safetensors file with fc6.weight, fc6.bias, fc7.weight and fc7.bias of a pretrained
            network; without it they start at random.
        foreground: windows a batch with an IoU of at least ``foreground_iou`` with an object.
        background: windows a batch with a largest IoU in ``background_iou``.
        foreground_iou: from which a window is of its object's class.
        background_iou: lower limit included, upper one not.
        images: from how many images the windows of a batch come.
        rates: learning rates, one after the other.
        lengths: batches with each of them.
        momentum: of the gradient descent.
        decay: weight decay.
        dropout: share of fc6 and fc7 that is left out in training.
        flipped: half of the images are seen flipped.
        random_scale: each window takes any of the scales (the release), not the one that suits it.
    """

    width: int = 4096
    weights: Path | None = None
    foreground: int = 32
    background: int = 96
    foreground_iou: float = 0.5
    background_iou: tuple[float, float] = (0.1, 0.5)
    images: int = 16
    rates: tuple[float, ...] = (1e-4, 1e-5)
    lengths: tuple[int, ...] = (250_000, 50_000)
    momentum: float = 0.9
    decay: float = 5e-4
    dropout: float = 0.5
    flipped: bool = True
    random_scale: bool = False


@dataclass(frozen=True)
class SvmStageOptions:
    """The SVMs and their hard negatives (paper section 3.4).

    Attributes:
        negatives: ``"paper"``: of negatives that overlap by more than ``alike`` one stays; ``"release"``:
            of those that cover the same cells at the same scale one stays.
        negative_iou: windows below this IoU with all objects of a class are its negatives.
        alike: the IoU of the paper's rule.
        C: cost of a unit of loss, for rows of a mean norm of 20.
        positive_weight: how many times more an error on an object costs.
        bias_feature: the constant feature whose weight gives the bias.
        tolerance: relative error of the weights.
        passes: over all images, in search of hard negatives.
        add_above: negatives that score more are added.
        evict_below: after a fit, negatives that score less are dropped.
        refit_after: added negatives of a class after which it is fitted anew.
        difficult: objects marked difficult are positives too, as in the release.
        rows_mb: memory of all classes' negatives together.
    """

    negatives: Negatives = "paper"
    negative_iou: float = 0.3
    alike: float = 0.7
    C: float = 1e-3
    positive_weight: float = 2.0
    bias_feature: float = 10.0
    tolerance: float = 0.02
    passes: int = 1
    add_above: float = -1.0001
    evict_below: float = -1.2
    refit_after: int = 2000
    difficult: bool = True
    rows_mb: int = 1000


@dataclass(frozen=True)
class BoxOptions:
    """Box regression (paper section 3.6).

    Attributes:
        regress: whether boxes are moved.
        ridge: the penalty, for rows of a mean norm of 20.
        above_iou: windows above this IoU with an object teach its class.
        rows_mb: memory of the rows of one class; of more windows a random part is taken.
    """

    regress: bool = True
    ridge: float = 4000.0
    above_iou: float = 0.5
    rows_mb: int = 800


@dataclass(frozen=True)
class PaperOptions:
    """The paper's detection, whole (paper section 3), and R-CNN beside it (paper section 4).

    Attributes:
        pipeline: ``"spp"``: convolve the image, then pool windows; ``"rcnn"``: crop windows, then
            convolve each.
        layer: the layer that is pooled, by the network's name for it or as ``stride16``; the network's
            own choice when None.
        scales: short sides of the images; the paper's are 480, 576, 688, 864 and 1200 together, or 688.
        levels: bins along each side of each level of the pyramid.
        cells: which cells of a map a window owns, and which scale it takes: the paper's rule or the
            release's (paper sections 3.2, 3.3).
        release_offset: pixels of the network's input by which the release's windows shrink on each side.
        largest: pixels of a resized image, at most; a larger one is refused, as a smaller scale would
            change the results.
        features: what the SVMs see: pooled maps, fc6 or fc7.
        finetuned: whether fc6 and fc7 are trained on the windows, or stay as they were given.
        windows: which windows an image has.
        finetune: training of the fully connected layers.
        svm: the SVMs and their hard negatives.
        boxes: box regression.
        crops: R-CNN's.
        score_above: of all windows, those whose margin is above this are looked at.
        nms: of two boxes of a class whose IoU is above this, the better one stays.
        per_class: boxes an image and class, at most.
    """

    pipeline: Pipeline = "spp"
    layer: str | None = None
    scales: tuple[int, ...] = (688,)
    levels: tuple[int, ...] = (6, 3, 2, 1)
    cells: CellRule = "paper"
    release_offset: float = 6.5
    largest: int = 16_000_000
    features: Features = "fc7"
    finetuned: bool = True
    windows: WindowOptions = field(default_factory=WindowOptions)
    finetune: FinetuneOptions = field(default_factory=FinetuneOptions)
    svm: SvmStageOptions = field(default_factory=SvmStageOptions)
    boxes: BoxOptions = field(default_factory=BoxOptions)
    crops: CropOptions = field(default_factory=CropOptions)
    score_above: float = -1.5
    nms: float = 0.3
    per_class: int = 100

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        tune, svm, low_high = self.finetune, self.svm, self.finetune.background_iou
        ranges = (
            ("scales", bool(self.scales) and min(self.scales) >= 16, self.scales, "sides of at least 16"),
            ("levels", bool(self.levels) and min(self.levels) >= 1, self.levels, "whole numbers above 0"),
            ("largest", self.largest >= 256, self.largest, "at least 256 pixels"),
            ("windows.most", self.windows.most >= 1, self.windows.most, "at least 1"),
            ("finetune.width", tune.width >= 1, tune.width, "at least 1"),
            ("finetune.foreground", tune.foreground >= 1, tune.foreground, "at least 1"),
            ("finetune.background", tune.background >= 1, tune.background, "at least 1"),
            ("finetune.images", tune.images >= 1, tune.images, "at least 1"),
            ("finetune.rates", min(tune.rates, default=0) > 0, tune.rates, "numbers above 0"),
            (
                "finetune.lengths",
                len(tune.lengths) == len(tune.rates) and min(tune.lengths, default=0) >= 1,
                tune.lengths,
                f"{len(tune.rates)} numbers of at least 1, one a learning rate",
            ),
            ("finetune.dropout", 0 <= tune.dropout < 1, tune.dropout, "a share of at least 0, below 1"),
            ("finetune.background_iou", 0 <= low_high[0] < low_high[1] <= 1, low_high, "rising IoUs"),
            ("svm.passes", svm.passes >= 1, svm.passes, "at least 1"),
            ("svm.rows_mb", svm.rows_mb >= 1, svm.rows_mb, "at least 1"),
            ("boxes.ridge", self.boxes.ridge > 0, self.boxes.ridge, "a number above 0"),
            ("boxes.rows_mb", self.boxes.rows_mb >= 1, self.boxes.rows_mb, "at least 1"),
            ("nms", 0 <= self.nms <= 1, self.nms, "an IoU, 0 to 1"),
            ("per_class", self.per_class >= 1, self.per_class, "at least 1"),
        )
        for name, right, got, wanted in ranges:
            if not right:
                raise UserError(f"options.{name}", wanted, got)
        if self.windows.source == "edge-boxes" and not (self.windows.edge_model or self.windows.file):
            wanted = "the file of OpenCV's structured edge model, for EdgeBoxes"
            raise UserError("options.windows.edge_model", wanted, "none")
        given = (
            ("windows.file", self.windows.file),
            ("windows.edge_model", self.windows.edge_model),
            ("finetune.weights", tune.weights),
        )
        for name, file in given:
            if file is not None and not file.is_file():
                raise UserError(file, f"a file, for options.{name}", "no such file")
        if self.windows.source == "dense" and self.windows.file is not None:
            wanted = "a file of boxes or dense windows, not both"
            raise UserError("options.windows", wanted, "both")

"""Options of the paper's detection pipeline and of R-CNN, one dataclass per stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sppnet.detect.crop_options import CropOptions
from sppnet.errors import UserError

Pipeline = Literal["spp", "rcnn"]
CellRule = Literal["paper", "release"]
Features = Literal["pool", "fc6", "fc7"]
Negatives = Literal["paper", "release"]
Preset = Literal["paper", "release", "rcnn"]

RELEASE_SCALES = (480, 576, 688, 874, 1200)
"""The five scales in the release's scripts; the paper has 864 for the fourth (section 4.1)."""


@dataclass(frozen=True)
class WindowOptions:
    """Proposals of an image (section 4.1).

    Attributes:
        source: ``"selective-search"``, ``"edge-boxes"`` or ``"dense"``.
        file: a file of boxes (.json, .csv, .mat, .parquet) in place of ``source``.
        edge_model: the structured edge model that OpenCV's EdgeBoxes needs, a .yml or .yml.gz file.
        most: maximum number of proposals per image; of more, the first ones, or every n-th of unranked ones.
    """

    source: Literal["selective-search", "edge-boxes", "dense"] = "selective-search"
    file: Path | None = None
    edge_model: Path | None = None
    most: int = 2000


@dataclass(frozen=True)
class FinetuneOptions:
    """Fine-tuning of fc6, fc7 and the new classifier (section 4.1); convolutional layers stay frozen.

    Attributes:
        width: units of fc6 and of fc7 where no pretrained ones are given.
        weights: a safetensors file or a run folder with pretrained fc6 and fc7; those of the backbone's
            weights, if they are a run of ``sppnet train classify``, when None.
        random_start: start fc6 and fc7 at random even if the backbone's weights have them.
        foreground: proposals per batch with an IoU of at least ``foreground_iou`` with an object.
        background: proposals per batch whose largest IoU lies in ``background_iou``.
        foreground_iou: smallest IoU with an object that gives a proposal the object's class.
        background_iou: lower limit, included, and upper limit, excluded.
        images: number of images that the proposals of a batch come from.
        rates: learning rates, one after the other.
        lengths: number of batches with each learning rate.
        momentum: of stochastic gradient descent.
        decay: weight decay.
        dropout: share of the units of fc6 and fc7 that are dropped in training.
        flipped: flip half of the images (the release and R-CNN; not in the paper).
        random_scale: pool each proposal at a random scale (the release) instead of its own (the paper).
    """

    width: int = 4096
    weights: Path | None = None
    random_start: bool = False
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
    flipped: bool = False
    random_scale: bool = False


@dataclass(frozen=True)
class SvmStageOptions:
    """SVMs and their hard negatives (section 4.1).

    Attributes:
        negatives: ``"paper"``: of negatives that overlap by more than ``alike`` one is kept; ``"release"``:
            of those that cover the same cells at the same scale one is kept.
        negative_iou: proposals below this IoU with all objects of a class are its negatives.
        alike: IoU above which two negatives are duplicates by the paper's rule.
        C: cost of a unit of loss, for features of mean norm 20.
        positive_weight: factor of the cost of errors on objects.
        bias_feature: the constant feature whose weight gives the bias.
        tolerance: relative error of the weights.
        passes: over all images, in search of hard negatives.
        add_above: negatives with a higher decision score are added.
        evict_below: after a fit, negatives with a lower decision score are dropped.
        refit_after: added negatives of a class after which its SVM is fitted again.
        difficult: use objects marked difficult as positives too, as the release does.
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
    """Bounding box regression (section 4.1).

    Attributes:
        regress: whether boxes are refined.
        ridge: the penalty, for features of mean norm 20; the release's, as the paper gives none.
        above_iou: proposals above this IoU with an object train the regressor of its class.
        rows_mb: memory of the features of one class; of more proposals a random subset is used.
    """

    regress: bool = True
    ridge: float = 4000.0
    above_iou: float = 0.5
    rows_mb: int = 800


@dataclass(frozen=True)
class PaperOptions:
    """Options of the paper's detection pipeline (section 4), and of R-CNN for comparison.

    The defaults are the paper's. `release` and `rcnn` give the settings of the released code of the paper
    and of R-CNN.

    Attributes:
        pipeline: ``"spp"``: convolve the image, then pool proposals; ``"rcnn"``: crop proposals, then
            convolve each.
        layer: the layer that is pooled, by the network's name for it or as ``stride16``; the network's
            default when None.
        mean_pixel: constant that is subtracted from all channels of an image in 0..255, in place of the
            network's own mean; the paper's is 128 for VOC 2007 and Caltech101 (appendix A).
        scales: short sides of the images; the paper's are 480, 576, 688, 864 and 1200 together, or 688.
        levels: bins along each side of each level of the pyramid.
        cells: rule for the cells of a proposal and for its scale: the paper's or the release's.
        release_offset: pixels of the network's input by which proposals shrink on each side (release).
        largest: maximum number of pixels of a resized image; a larger one is refused, as a smaller scale
            would change the results.
        features: input of the SVMs: pooled maps, fc6 or fc7.
        finetuned: fine-tune fc6 and fc7 instead of using them as they are.
        windows: proposals.
        finetune: fine-tuning of the fully connected layers.
        svm: SVMs and their hard negatives.
        boxes: bounding box regression.
        crops: R-CNN's crops.
        score_above: proposals with a lower decision score are dropped.
        nms: of two boxes of a class with a higher IoU, the one with the higher score is kept.
        per_class: maximum number of boxes per image and class.

    Examples:
        >>> from sppnet.detect.paper import PaperOptions
        >>> PaperOptions().finetune.flipped, PaperOptions.release().finetune.flipped
        (False, True)
        >>> PaperOptions.rcnn().boxes.ridge
        1000.0
    """

    pipeline: Pipeline = "spp"
    layer: str | None = None
    mean_pixel: float | None = None
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

    @classmethod
    def preset(cls, name: Preset) -> PaperOptions:
        """Return the options called ``"paper"``, ``"release"`` or ``"rcnn"``."""
        return {"paper": cls, "release": cls.release, "rcnn": cls.rcnn}[name]()

    @classmethod
    def release(cls) -> PaperOptions:
        """Return the settings of the released code where they differ from the paper's.

        Scale 874, the release's cells and duplicate rule, flipped images, a random scale per proposal in
        fine-tuning, and its learning rates (SPP_net release, spp_finetune_voc.m and solver files).
        """
        return cls(
            mean_pixel=128.0,
            scales=RELEASE_SCALES,
            cells="release",
            finetune=FinetuneOptions(
                rates=(1e-3, 1e-4, 1e-5), lengths=(30_000, 30_000, 140_000), flipped=True, random_scale=True
            ),
            svm=SvmStageOptions(negatives="release"),
        )

    @classmethod
    def rcnn(cls) -> PaperOptions:
        """Return the settings of R-CNN (Girshick et al. 2014; R-CNN release).

        Crops of 227 pixels, a last pool to 6x6, proposals without any overlap as background, flipped
        images, and regression on IoU above 0.6 with a penalty of 1000. R-CNN fine-tunes all layers; here
        only fc6, fc7 and the classifier are trained and the convolutional layers stay frozen, so results
        with fine-tuned layers are those of a weaker baseline.
        """
        return cls(
            pipeline="rcnn",
            levels=(6,),
            finetune=FinetuneOptions(
                background_iou=(0.0, 0.5),
                rates=(1e-3, 1e-4, 1e-5, 1e-6),
                lengths=(20_000, 20_000, 20_000, 10_000),
                flipped=True,
            ),
            svm=SvmStageOptions(negatives="release"),
            boxes=BoxOptions(ridge=1000.0, above_iou=0.6),
        )

    def check(self) -> None:
        """Raise `UserError` for the first value that is out of its range."""
        tune, svm, low_high = self.finetune, self.svm, self.finetune.background_iou
        ranges = (
            ("scales", bool(self.scales) and min(self.scales) >= 16, self.scales, "sides of at least 16"),
            ("levels", bool(self.levels) and min(self.levels) >= 1, self.levels, "whole numbers above 0"),
            ("largest", self.largest >= 256, self.largest, "at least 256 pixels"),
            (
                "mean_pixel",
                self.mean_pixel is None or 0 <= self.mean_pixel <= 255,
                self.mean_pixel,
                "a pixel value, 0 to 255",
            ),
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
            (
                "finetune.foreground_iou",
                low_high[1] <= tune.foreground_iou <= 1,
                tune.foreground_iou,
                "an IoU of at least background_iou's upper limit",
            ),
            ("finetune.momentum", 0 <= tune.momentum < 1, tune.momentum, "at least 0, below 1"),
            ("finetune.decay", tune.decay >= 0, tune.decay, "at least 0"),
            ("finetune.background_iou", 0 <= low_high[0] < low_high[1] <= 1, low_high, "rising IoUs"),
            ("svm.passes", svm.passes >= 1, svm.passes, "at least 1"),
            ("svm.rows_mb", svm.rows_mb >= 1, svm.rows_mb, "at least 1"),
            ("boxes.above_iou", 0 <= self.boxes.above_iou < 1, self.boxes.above_iou, "an IoU below 1"),
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
            if file is not None and not (file.is_file() or (file / "model.safetensors").is_file()):
                raise UserError(file, f"a file, for options.{name}", "no such file")
        if self.windows.source == "dense" and self.windows.file is not None:
            wanted = "a file of boxes or dense windows, not both"
            raise UserError("options.windows", wanted, "both")

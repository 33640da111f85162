"""Options of the stages above the SVMs' features: IoU head, fully connected layers, post-processing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sppnet.detect.ranges import ABOVE_0, AT_LEAST_0, AT_LEAST_1, BELOW_1, IOU, SHARE, Range, check_ranges
from sppnet.errors import UserError


@dataclass(frozen=True)
class IouHeadOptions:
    """The MLP that refines boxes and predicts their IoU; it needs ``regression="projected"``.

    Attributes:
        iou_head: hidden units; 0 disables it.
        iou_boxes: approximate number of jittered boxes.
        iou_per_object: maximum number of jittered boxes per object.
        iou_images: approximate number of images whose proposals with high decision scores are used too.
        iou_per_class: maximum number of such proposals per image and class.
        iou_per_image: maximum number of such proposals per image.
        jitter_shift: maximum shift of a jittered box, in sides of the object.
        jitter_stretch: maximum logarithm of the ratio of its sides to the object's.
        placed_iou: minimum IoU of the boxes that train the deltas.
        largest_delta: limit of the deltas of a box, in units of their standard deviation.

    Examples:
        >>> IouHeadOptions(iou_head=64).iou_head
        64
    """

    iou_head: int = 128
    iou_boxes: int = 20_000
    iou_per_object: int = 48
    iou_images: int = 100
    iou_per_class: int = 20
    iou_per_image: int = 100
    jitter_shift: float = 0.6
    jitter_stretch: float = 1.0
    placed_iou: float = 0.4
    largest_delta: float = 5.0

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        check_ranges(self, IOU_HEAD_RANGES)


IOU_HEAD_RANGES: Mapping[str, Range] = {
    "iou_head": AT_LEAST_0,
    "iou_boxes": AT_LEAST_1,
    "iou_per_object": AT_LEAST_1,
    "iou_images": AT_LEAST_1,
    "iou_per_class": AT_LEAST_1,
    "iou_per_image": AT_LEAST_1,
    "jitter_shift": AT_LEAST_0,
    "jitter_stretch": AT_LEAST_0,
    "placed_iou": IOU,
    "largest_delta": ABOVE_0,
}


@dataclass(frozen=True)
class FcOptions:
    """Fully connected layers between the pooled features and the SVMs (section 4.1).

    Attributes:
        features: input of the SVMs: pooled maps, fc6 or fc7.
        finetuned: fine-tune fc6 and fc7 instead of using them as they are.
        width: units of fc6 and of fc7 where no pretrained ones are given.
        fc_weights: a safetensors file or a run folder with pretrained fc6 and fc7; those of the backbone's
            weights, if they are a run of ``sppnet train classify``, when None.
        random_start: initialise fc6 and fc7 at random even if the weights of the backbone include them.

    Examples:
        >>> FcOptions(features="fc7").width
        4096
    """

    features: Literal["pool", "fc6", "fc7"] = "pool"
    finetuned: bool = True
    width: int = 4096
    fc_weights: Path | None = None
    random_start: bool = False

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range, or a file that is not there."""
        check_ranges(self, {"width": AT_LEAST_1})
        file = self.fc_weights
        if file is None:
            return
        from sppnet.backbones.weights import weights_file  # which imports torch; --help does not wait for it

        if not weights_file(file).is_file():
            raise UserError(file, "a file, for options.fc_weights", "no such file")


@dataclass(frozen=True)
class FinetuneOptions:
    """Fine-tuning of fc6, fc7 and the new classifier (section 4.1); convolutional layers stay frozen.

    Attributes:
        foreground: proposals per batch with an IoU of at least ``foreground_iou`` with an object.
        background: proposals per batch whose largest IoU lies in ``background_iou``.
        foreground_iou: smallest IoU with an object that gives a proposal the object's class.
        background_iou: lower limit, included, and upper limit, excluded.
        images: number of images that the proposals of a batch come from.
        rates: learning rates, one after the other.
        lengths: number of batches with each learning rate.
        momentum: momentum of stochastic gradient descent.
        decay: weight decay.
        dropout: share of the units of fc6 and fc7 that are dropped in training.
        flipped: flip half of the images (the release and R-CNN; not in the paper).
        random_scale: pool each proposal at a random scale (the release) instead of its own (the paper).

    Examples:
        >>> FinetuneOptions(rates=(1e-3,), lengths=(100,)).lengths
        (100,)
    """

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

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        where = "options.finetune"
        check_ranges(self, FINETUNE_RANGES, where)
        if len(self.lengths) != len(self.rates) or min(self.lengths, default=0) < 1:
            expected = f"{len(self.rates)} numbers of at least 1, one per learning rate"
            raise UserError(f"{where}.lengths", expected, self.lengths)
        low, high = self.background_iou
        if not 0 <= low < high <= 1:
            raise UserError(f"{where}.background_iou", "rising IoUs", self.background_iou)
        if not high <= self.foreground_iou <= 1:
            expected = "at least the upper limit of background_iou"
            raise UserError(f"{where}.foreground_iou", expected, self.foreground_iou)


FINETUNE_RANGES: Mapping[str, Range] = {
    "foreground": AT_LEAST_1,
    "background": AT_LEAST_1,
    "images": AT_LEAST_1,
    "rates": (lambda value: min(value, default=0) > 0, "numbers above 0"),
    "momentum": BELOW_1,
    "decay": AT_LEAST_0,
    "dropout": (lambda value: 0 <= value < 1, "a share of at least 0, below 1"),
}


@dataclass(frozen=True)
class PostOptions:
    """From decision scores of proposals to detections (section 4.1).

    Attributes:
        score_above: proposals with a lower decision score are dropped.
        thinning: IoU above which the worse of two candidates is dropped before boxes are refined.
        best: maximum number of candidates per class before thinning; 0 for all.
        candidates: maximum number of candidates per class after thinning; 0 for ``per_class``.
        candidates_per_image: maximum number of candidates per image over all classes; 0 for no limit.
        regressions: number of refinements of a box; 0 for none.
        rescored: score boxes again after they are refined.
        iou_weight: weight of the logit of the IoU head in the score.
        calibrated: fit a sigmoid per class from scores to probabilities; otherwise the standard logistic
            function is used.
        calibration_images: approximate number of training images for the calibration.
        calibration_per_class: number of further images for each class that these do not contain.
        nms: IoU above which non-maximum suppression drops the worse of two boxes of a class.
        vote: minimum IoU of the boxes that are averaged with a detection (box voting); 1 for no voting.
        per_class: maximum number of boxes per image and class.
        threshold: minimum probability of the detections of `predict`.
        same_box: IoU above which one of two detections repeats the other, whatever their classes; 1 keeps
            them.
        inside: IoA above which one of two detections of a class repeats the other; 1 keeps them.

    Examples:
        >>> PostOptions(nms=0.3, vote=1.0).per_class
        100
    """

    score_above: float = -1.3
    thinning: float = 0.75
    best: int = 8000
    candidates: int = 400
    candidates_per_image: int = 600
    regressions: int = 2
    rescored: bool = True
    iou_weight: float = 0.5
    calibrated: bool = True
    calibration_images: int = 40
    calibration_per_class: int = 10
    nms: float = 0.4
    vote: float = 0.75
    per_class: int = 100
    threshold: float = 0.5
    same_box: float = 0.6
    inside: float = 0.85

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        check_ranges(self, POST_RANGES)


POST_RANGES: Mapping[str, Range] = {
    "thinning": IOU,
    "best": AT_LEAST_0,
    "candidates": AT_LEAST_0,
    "candidates_per_image": AT_LEAST_0,
    "regressions": AT_LEAST_0,
    "iou_weight": AT_LEAST_0,
    "calibration_images": AT_LEAST_1,
    "calibration_per_class": AT_LEAST_1,
    "nms": IOU,
    "vote": (lambda value: 0 < value <= 1, "an IoU, above 0 and at most 1"),
    "per_class": AT_LEAST_1,
    "threshold": (lambda value: 0 <= value <= 1, "a probability"),
    "same_box": IOU,
    "inside": SHARE,
}

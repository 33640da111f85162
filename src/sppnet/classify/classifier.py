"""The classifier: fit, predict, evaluate, save, load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sppnet.backbones import load_backbone, prepare
from sppnet.classify.options import ClassifierOptions
from sppnet.classify.result import ClassificationResult
from sppnet.data import (
    Division,
    ImageSource,
    classification_to_fit,
    classification_to_measure,
    read_scaled,
)
from sppnet.estimators import Estimator, SavedState, TensorSpec, fresh_fit
from sppnet.evaluate import classification_metrics
from sppnet.features import extract, image_rows
from sppnet.features.extract import resized_size
from sppnet.features.network import backbone_tensors, pick_device
from sppnet.features.parallel import parallel_map
from sppnet.learn import LinearModel, SvmOptions, fit_linear_svm, fit_sigmoid, one_versus_rest
from sppnet.progress import Stopwatch, peak_memory_mb
from sppnet.structures import ClassificationSet, ImageSize


@dataclass(init=False)
class Classifier(Estimator[ClassificationResult]):
    """Names images: a frozen backbone's maps, pooled over the full image; linear SVMs.

    The transfer pipeline of the paper's section 2: images keep their size and shape. As in scikit-learn,
    the constructor stores its arguments, `fit` learns what ends in ``_`` and returns self.

    Attributes:
        backbone: ``builtin``, ``lite0``, ``lite2``, ``torchvision:NAME`` or ``timm:NAME``.
        weights: local weights of the backbone, a safetensors file; nothing is downloaded then.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        val_share: the share of the images of a data set without splits that `fit` holds out and `evaluate`
            measures. None is 0.2 for a path, and 0 for a data set object, of which all images are used.
        options: how an image becomes a row, and how rows are told apart.
        val_share: the share of the images of a data set without splits that `fit` holds out and `evaluate`
            measures. None is 0.2 for a path, and 0 for a data set object, of which all images are used.
        options: how an image becomes a row, and how rows are told apart; single options can be given by
            their names.

    Examples:
        >>> classifier = Classifier(C=1.0)
        >>> classifier == Classifier(options=ClassifierOptions(C=1.0))
        True
    """

    kind: ClassVar[str] = "classifier"

    backbone: str = "builtin"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    val_share: float | None = None
    options: ClassifierOptions = field(default_factory=ClassifierOptions)

    def __init__(
        self,
        backbone: str = "builtin",
        weights: Path | str | None = None,
        device: str = "auto",
        seed: int = 0,
        val_share: float | None = None,
        options: ClassifierOptions | None = None,
        **single: Any,
    ) -> None:
        values = {"backbone": backbone, "weights": weights, "device": device, "seed": seed}
        values |= {"val_share": val_share, "options": options or ClassifierOptions()}
        self._store(values, single)

    @fresh_fit
    def fit(
        self,
        data: str | os.PathLike[str] | ClassificationSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
        quiet: bool = False,
    ) -> Self:
        """Learn from a folder of images for each class.

        Args:
            data: the folder, or a data set that was read.
            split: the part to learn from; the part for training when None.
            layout: ``"folders"``, where looking is not enough.
            skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
            quiet: no progress bars.

        Returns:
            self, with ``names_``, ``summary_`` (seconds by stage, counts, notes, peak memory), ``fitted_on_``
            (digests of the images fitted on and held out) and the SVMs.

        Raises:
            UserError: data, weights or options at fault.
        """
        watch = Stopwatch()
        division = Division(self.val_share, self.seed)
        dataset, record = classification_to_fit(data, split, layout, division, skip_bad=skip_bad)
        weights = None if self.weights is None else Path(self.weights)
        self.backbone_ = load_backbone(self.backbone, weights, self.options.layers, seed=self.seed)
        self.network_ = prepare(self.backbone_, pick_device(self.device))
        watch("setup")
        rows = self._rows([item.path for item in dataset.items], "Features", quiet=quiet)
        watch("features")
        labels = torch.tensor([item.label for item in dataset.items])
        targets = one_versus_rest(labels, len(dataset.names))
        self.svm_ = fit_linear_svm(rows, targets, SvmOptions(C=self.options.C))
        watch("svm")
        self.calibration_ = _calibrate(self.svm_.scores(rows), targets)
        self.names_ = dataset.names
        self.fitted_on_ = record
        self.summary_: dict[str, Any] = {
            "seconds": watch.seconds(),
            "images": len(dataset),
            "windows": len(dataset),
            "numbers_a_row": rows.shape[1],
            "held_out_images": len(record.held_out),
            "notes": list(dataset.notes),
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def _rows(self, paths: Sequence[Path], title: str, *, quiet: bool) -> Tensor:
        """float32 ``[N, D]``: `_row` of every image."""
        return torch.stack(parallel_map(self._row, paths, title, self.network_.device, quiet=quiet))

    def _row(self, source: ImageSource) -> Tensor:
        """float32 ``[D]`` of norm 1 on the CPU: the full-image view at every scale (paper section 2)."""
        options = self.options
        image = read_scaled(source, self._largest_input).values
        views = [image, image.flip(2)] if options.flip else [image]
        parts: list[Tensor] = []
        for scale in sorted(set(options.scales or (0,))):
            row = torch.zeros(())
            for view in views:
                sides = (scale,) if scale else None
                maps = extract(self.network_, view, sides, long_side=options.long_side)
                row = row + image_rows(maps, options.levels, normalise=options.normalise).flatten().cpu()
            parts.append(row)
        return torch.nn.functional.normalize(torch.cat(parts), dim=0)

    def _largest_input(self, size: ImageSize) -> ImageSize:
        """The largest of the sizes at which the network sees an image."""
        scales = [scale or None for scale in self.options.scales or (0,)]
        sizes = [resized_size(size, scale, self.network_, self.options.long_side) for scale in scales]
        return max(sizes, key=lambda one: one.area)

    def _margins(self, source: ImageSource) -> Tensor:
        return self.svm_.scores(self._row(source)[None])[0]

    def _predict_one(self, source: ImageSource, threshold: float | None) -> ClassificationResult:
        slope, offset = self.calibration_
        probabilities = torch.softmax(slope * self._margins(source) + offset, 0)
        return ClassificationResult.top(probabilities, self.names_, source, threshold)

    def evaluate(
        self,
        data: str | os.PathLike[str] | ClassificationSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Measure on a folder of images for each class.

        Of a data set without splits that `fit` divided, the held-out images are measured.

        Args:
            data: a folder whose classes are among the classifier's, or a data set that was read.
            split: the part to measure on; the part for validation or test when None.
            layout: ``"folders"``, where looking is not enough.
            skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
            quiet: no progress bars.

        Returns:
            What `sppnet.evaluate.classification_metrics` returns: "accuracy", "mean_class_accuracy",
            "top5", "per_class", ...; and "held_out" (whether held-out images are measured), "trained_on"
            (how many of the measured images were fitted on; None for runs without a record of them) and
            "notes" (one sentence each).

        Raises:
            UserError: not fitted, or data at fault.
        """
        self._check_fitted()
        dataset, facts = self.to_measure(data, split, layout=layout, skip_bad=skip_bad)
        rows = self._rows([item.path for item in dataset.items], "Evaluating", quiet=quiet)
        labels = torch.tensor([item.label for item in dataset.items])
        metrics = classification_metrics(self.svm_.scores(rows), labels, self.names_)
        return {**metrics, **facts, "notes": list(dataset.notes)}

    def to_measure(
        self,
        data: str | os.PathLike[str] | ClassificationSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
    ) -> tuple[ClassificationSet, dict[str, object]]:
        """The images that `evaluate` measures of some data, and its "held_out" and "trained_on".

        Raises:
            UserError: not fitted, or data at fault.
        """
        self._check_fitted()
        return classification_to_measure(data, split, layout, self.names_, self.fitted_on_, skip_bad=skip_bad)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        tensors: dict[str, Tensor] = {
            "svm.weight": self.svm_.weight,
            "svm.bias": self.svm_.bias,
            "calibration": self.calibration_,
            **backbone_tensors(self.backbone_),
        }
        return tensors, {"backbone": self.backbone_.spec()}

    def _restore(self, state: SavedState) -> None:
        self.backbone_ = state.backbone()
        channels = sum(info.channels for info in self.backbone_.layers)
        bins = sum(n * n for n in self.options.levels)
        table = [
            TensorSpec("svm.weight", ("K", "D")),
            TensorSpec("svm.bias", ("K",)),
            TensorSpec("calibration", (2,)),
        ]
        state.check(table, {"D": len(set(self.options.scales or (0,))) * bins * channels})
        self.svm_ = LinearModel(state.tensors["svm.weight"], state.tensors["svm.bias"])
        self.calibration_ = state.tensors["calibration"]
        self.network_ = prepare(self.backbone_, pick_device(self.device))


def _calibrate(margins: Tensor, targets: Tensor) -> Tensor:
    """Slope and offset ``[2]``, one pair for all classes, before a softmax turns margins to probabilities.

    A sigmoid for "is of the class" over all pairs of image and class; the softmax then makes the
    probabilities of an image add up to 1.
    """
    return torch.tensor(fit_sigmoid(margins.flatten(), (targets > 0).flatten()))

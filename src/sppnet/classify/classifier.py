"""The classifier: fit, predict, evaluate, save, load."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor

from sppnet.backbones import load_backbone, prepare
from sppnet.classify.options import ClassifierOptions
from sppnet.classify.result import ClassificationResult
from sppnet.config import as_config, from_config
from sppnet.data import (
    Division,
    FittedOn,
    ImageSource,
    classification_to_fit,
    classification_to_measure,
    read_scaled,
)
from sppnet.errors import UserError
from sppnet.evaluate import classification_metrics
from sppnet.features import extract, image_rows
from sppnet.features.extract import resized_size
from sppnet.features.network import backbone_tensors, pick_device, restore_backbone
from sppnet.features.parallel import parallel_map
from sppnet.learn import LinearModel, SvmOptions, fit_linear_svm, fit_sigmoid, one_versus_rest
from sppnet.predicting import FailedSource, predict_each, predict_sources
from sppnet.progress import Stopwatch, peak_memory_mb
from sppnet.runs import load_run, save_run
from sppnet.structures import ClassificationSet, ImageSize


@dataclass
class Classifier:
    """Names images: a frozen backbone's maps, pooled over the full image; linear SVMs.

    The transfer pipeline of the paper's section 2: images keep their size and shape. As in scikit-learn,
    the constructor stores its arguments, `fit` learns what ends in ``_`` and returns self.

    Attributes:
        backbone: ``builtin``, ``torchvision:NAME`` or ``timm:NAME``.
        weights: local weights of the backbone, a safetensors file; nothing is downloaded then.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        val_share: the share of the images of a data set without splits that `fit` holds out and `evaluate`
            measures. None is 0.2 for a path, and 0 for a data set object, of which all images are used.
        options: how an image becomes a row, and how rows are told apart.
    """

    backbone: str = "builtin"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    val_share: float | None = None
    options: ClassifierOptions = field(default_factory=ClassifierOptions)

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
        self.options.check()
        watch = Stopwatch()
        division = Division(self.val_share, self.seed)
        dataset, record = classification_to_fit(data, split, layout, division, skip_bad=skip_bad)
        weights = None if self.weights is None else Path(self.weights)
        self.backbone_ = load_backbone(self.backbone, weights, seed=self.seed)
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
        self.fitted_on_: FittedOn | None = record
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

    def predict(
        self,
        source: ImageSource | Sequence[ImageSource] | Iterator[ImageSource],
        *,
        threshold: float | None = None,
    ) -> ClassificationResult | list[ClassificationResult]:
        """Classify an image, or each of a list.

        Args:
            source: a path, bytes, a binary file, a PIL image, an array or a tensor (see
                `sppnet.data.read_pixels`), or a list or iterator of them.
            threshold: leave out classes that are less probable; the five top come when None.

        Raises:
            UserError: not fitted, or an image that cannot be read.
            SourcesError: some images of a list that cannot be read; it holds the results of all others.
        """
        self._check_fitted()
        return predict_sources(lambda one: self._predict_one(one, threshold), source)

    def predict_iter(
        self, sources: Iterable[ImageSource], *, threshold: float | None = None
    ) -> Iterator[ClassificationResult | FailedSource]:
        """Yield the result of every image in order, in bounded memory.

        An image that cannot be read yields a `FailedSource`, whose ``error`` says why; ``error`` is None in
        a result.

        Args:
            sources: any iterable of what `predict` takes.
            threshold: as in `predict`.

        Raises:
            UserError: not fitted, or no iterable.
        """
        self._check_fitted()
        return predict_each(lambda one: self._predict_one(one, threshold), sources)

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

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder that `load` and ``sppnet predict`` need nothing beside.

        Raises:
            UserError: not fitted, or a folder that may not be written.
        """
        self._check_fitted()
        tensors: dict[str, Tensor] = {
            "svm.weight": self.svm_.weight,
            "svm.bias": self.svm_.bias,
            "calibration": self.calibration_,
            **backbone_tensors(self.backbone_),
        }
        model: dict[str, object] = {
            "names": list(self.names_),
            "backbone": self.backbone_.spec(),
            "summary": self.summary_,
            "fitted_on": None if self.fitted_on_ is None else self.fitted_on_.to_dict(),
        }
        return save_run(Path(folder), "classifier", as_config(self), tensors, model, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Self:
        """Read a run folder that `save` wrote.

        Raises:
            UserError: no run of a classifier of this version, or a damaged one.
        """
        run = load_run(Path(folder), "classifier")
        ours = from_config(cls, run.config, run.folder / "config.toml")
        ours.device = device
        model, tensors = cast("dict[str, Any]", run.model), run.tensors
        try:
            ours.backbone_ = restore_backbone(model["backbone"], tensors, run.folder)
            ours.svm_ = LinearModel(tensors["svm.weight"], tensors["svm.bias"])
            ours.calibration_ = tensors["calibration"]
            ours.names_ = tuple(model["names"])
            ours.summary_ = dict(model["summary"])
            ours.fitted_on_ = FittedOn.from_dict(model.get("fitted_on"), run.folder / "model.json")
        except KeyError as error:
            raise UserError(run.folder, "a whole run", f"one without {error}", "Fit again.") from error
        ours.network_ = prepare(ours.backbone_, pick_device(device))
        return ours

    def _check_fitted(self) -> None:
        if not hasattr(self, "svm_"):
            raise UserError("Classifier", "a fitted classifier", "one that is not", "Call fit or load first.")


def _calibrate(margins: Tensor, targets: Tensor) -> Tensor:
    """Slope and offset ``[2]``, one pair for all classes, before a softmax turns margins to probabilities.

    A sigmoid for "is of the class" over all pairs of image and class; the softmax then makes the
    probabilities of an image add up to 1.
    """
    return torch.tensor(fit_sigmoid(margins.flatten(), (targets > 0).flatten()))

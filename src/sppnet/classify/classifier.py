"""The classifier: fit, predict, evaluate, save, load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor

from sppnet.backbones import load_backbone, prepare
from sppnet.classify.options import ClassifierOptions
from sppnet.classify.result import ClassificationResult
from sppnet.config import as_config, from_config
from sppnet.data import (
    ImageSource,
    classification_for,
    default_split,
    read_classification,
    read_image,
)
from sppnet.errors import UserError
from sppnet.evaluate import classification_metrics
from sppnet.features import extract, image_rows
from sppnet.features.network import backbone_tensors, pick_device, restore_backbone
from sppnet.features.parallel import parallel_map
from sppnet.learn import LinearModel, SvmOptions, fit_linear_svm, fit_sigmoid, one_versus_rest
from sppnet.progress import Stopwatch, peak_memory_mb
from sppnet.runs import load_run, save_run


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
        options: how an image becomes a row, and how rows are told apart.
    """

    backbone: str = "builtin"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    options: ClassifierOptions = field(default_factory=ClassifierOptions)

    def fit(
        self,
        data: str | os.PathLike[str],
        split: str | None = None,
        *,
        layout: str | None = None,
        quiet: bool = False,
    ) -> Self:
        """Learn from a folder of images for each class.

        Args:
            data: the folder.
            split: the part to learn from; the part for training when None.
            layout: ``"folders"``, where looking is not enough.
            quiet: no progress bars.

        Returns:
            self, with ``names_``, ``summary_`` (seconds by stage, counts, peak memory) and the SVMs.

        Raises:
            UserError: data, weights or options at fault.
        """
        self.options.check()
        watch = Stopwatch()
        dataset = read_classification(data, split, layout)
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
        self.summary_: dict[str, Any] = {
            "seconds": watch.seconds(),
            "images": len(dataset),
            "windows": len(dataset),
            "numbers_a_row": rows.shape[1],
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def _rows(self, paths: Sequence[Path], title: str, *, quiet: bool) -> Tensor:
        """float32 ``[N, D]``: `_row` of every image."""
        return torch.stack(parallel_map(self._row, paths, title, self.network_.device, quiet=quiet))

    def _row(self, source: ImageSource) -> Tensor:
        """float32 ``[D]`` of norm 1 on the CPU: the full-image view at every scale (paper section 2)."""
        image = read_image(source)
        options = self.options
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

    def _margins(self, source: ImageSource) -> Tensor:
        return self.svm_.scores(self._row(source)[None])[0]

    def predict(
        self, source: ImageSource | Sequence[ImageSource], *, threshold: float | None = None
    ) -> ClassificationResult | list[ClassificationResult]:
        """Classify an image, or each of a list.

        Args:
            source: a path, a PIL image, an array (RGB, uint8), or a list of them.
            threshold: leave out classes that are less probable; the five top come when None.

        Raises:
            UserError: not fitted, or an image that cannot be read.
        """
        self._check_fitted()
        if isinstance(source, (list, tuple)):
            return [self._predict_one(one, threshold) for one in cast("Sequence[ImageSource]", source)]
        return self._predict_one(cast("ImageSource", source), threshold)

    def _predict_one(self, source: ImageSource, threshold: float | None) -> ClassificationResult:
        slope, offset = self.calibration_
        probabilities = torch.softmax(slope * self._margins(source) + offset, 0)
        return ClassificationResult.top(probabilities, self.names_, source, threshold)

    def evaluate(
        self,
        data: str | os.PathLike[str],
        split: str | None = None,
        *,
        layout: str | None = None,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Measure on a folder of images for each class.

        Args:
            data: a folder whose classes are among the classifier's.
            split: the part to measure on; the part for validation or test when None.
            layout: ``"folders"``, where looking is not enough.
            quiet: no progress bars.

        Returns:
            What `sppnet.evaluate.classification_metrics` returns: "accuracy", "mean_class_accuracy",
            "top5", "per_class", ...

        Raises:
            UserError: not fitted, or data at fault.
        """
        self._check_fitted()
        part = default_split(data, "evaluate", layout) if split is None else split
        dataset = classification_for(read_classification(data, part, layout), self.names_)
        rows = self._rows([item.path for item in dataset.items], "Evaluating", quiet=quiet)
        scores = self.svm_.scores(rows)
        return classification_metrics(scores, torch.tensor([i.label for i in dataset.items]), self.names_)

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
        }
        return save_run(Path(folder), "classifier", as_config(self), tensors, model, overwrite=overwrite)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        part: Literal["all", "features", "box-features"] = "all",
        precision: Literal["float32", "float16", "int8"] = "float32",
        calibration: Sequence[ImageSource] = (),
    ) -> Path:
        """Write one ONNX file for images of any size; see `sppnet.export.export_estimator`.

        Raises:
            UserError: not fitted, or an argument at fault.
        """
        from sppnet.export import export_estimator

        return export_estimator(self, path, part=part, precision=precision, calibration=calibration)

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

"""Image classification with linear SVMs on features of a frozen backbone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sppnet.backbones import load_backbone, prepare
from sppnet.classify.base import ImageClassifier
from sppnet.classify.options import ClassifierOptions
from sppnet.classify.result import ClassificationResult
from sppnet.config import DEFAULT_BACKBONE
from sppnet.data import (
    Division,
    ImageSource,
    classification_to_fit,
    read_scaled,
)
from sppnet.estimators import SavedState, TensorSpec, fresh_fit
from sppnet.features import extract, image_rows
from sppnet.features.extract import resized_size
from sppnet.features.network import backbone_tensors, pick_device
from sppnet.features.parallel import parallel_map
from sppnet.learn import LinearModel, SvmOptions, fit_linear_svm, fit_sigmoid, one_versus_rest
from sppnet.progress import Stopwatch, peak_memory_mb
from sppnet.structures import ClassificationSet, ImageSize


@dataclass(init=False)
class Classifier(ImageClassifier):
    """Classify images with linear SVMs on pyramid features of a frozen backbone.

    The features of the full image are those of transfer classification (He et al. 2015, sections 3.2 and
    3.3); images keep their size and aspect ratio. As in scikit-learn, the constructor only stores its
    arguments, fitted attributes end in ``_``, and `fit` returns self.

    Attributes:
        backbone: ``builtin``, ``lite0``, ``lite2``, ``torchvision:NAME`` or ``timm:NAME``.
        weights: local weights of the backbone, a safetensors file; otherwise they may be downloaded.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: seed of all random numbers.
        val_share: share of the images that `fit` holds out of a data set without splits and `evaluate` uses.
            None is 0.2 for a path, and 0 for a data set object.
        options: feature extraction and SVM; single options can be given by name.

    Examples:
        >>> classifier = Classifier(C=1.0)
        >>> classifier == Classifier(options=ClassifierOptions(C=1.0))
        True
    """

    kind: ClassVar[str] = "classifier"

    backbone: str = DEFAULT_BACKBONE
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    val_share: float | None = None
    options: ClassifierOptions = field(default_factory=ClassifierOptions)

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
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
        """Fit the SVMs on labelled images.

        Args:
            data: a folder with one folder of images per class, or a data set object.
            split: the split to fit on; the training split when None.
            layout: ``"folders"``; detected automatically when None.
            skip_bad: skip damaged images; otherwise an error lists all of them.
            quiet: show no progress bars.

        Returns:
            self, with ``names_``, ``summary_`` (seconds per stage, counts, notes, peak memory),
            ``fitted_on_`` (digests of the fitted and the held-out images) and the SVMs.

        Raises:
            UserError: the data, the weights or the options are invalid.
        """
        watch = Stopwatch()
        division = Division(self.val_share, self.seed)
        dataset, record = classification_to_fit(data, split, layout, division, skip_bad=skip_bad)
        self.backbone_ = load_backbone(self.backbone, self.weights, self.options.layers, seed=self.seed)
        self.network_ = prepare(self.backbone_, pick_device(self.device))
        watch("setup")
        features = self._features([item.path for item in dataset.items], "Extracting features", quiet=quiet)
        watch("features")
        labels = torch.tensor([item.label for item in dataset.items])
        targets = one_versus_rest(labels, len(dataset.names))
        self.svm_ = fit_linear_svm(features, targets, SvmOptions(C=self.options.C))
        watch("svm")
        self.calibration_ = _calibrate(self.svm_.scores(features), targets)
        self.names_ = dataset.names
        self.fitted_on_ = record
        self.summary_: dict[str, Any] = {
            "seconds": watch.seconds(),
            "images": len(dataset),
            "windows": len(dataset),
            "numbers_a_row": features.shape[1],
            "held_out_images": len(record.held_out),
            "notes": list(dataset.notes),
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def _features(self, paths: Sequence[Path], title: str, *, quiet: bool) -> Tensor:
        """Return the features ``[N, D]`` of images, float32."""
        return torch.stack(
            parallel_map(self._feature_vector, paths, title, self.network_.device, quiet=quiet)
        )

    def _feature_vector(self, source: ImageSource) -> Tensor:
        """Return the feature vector ``[D]`` of an image, float32, of norm 1, on the CPU."""
        options = self.options
        image = read_scaled(source, self._largest_input).values
        views = [image, image.flip(2)] if options.flip else [image]
        vectors: list[Tensor] = []
        for scale in sorted(set(options.scales or (0,))):
            vector = torch.zeros(())
            for view in views:
                sides = (scale,) if scale else None
                maps = extract(self.network_, view, sides, long_side=options.long_side)
                vector = (
                    vector + image_rows(maps, options.levels, normalise=options.normalise).flatten().cpu()
                )
            vectors.append(vector)
        return torch.nn.functional.normalize(torch.cat(vectors), dim=0)

    def _largest_input(self, size: ImageSize) -> ImageSize:
        """Return the largest input size of the network for an image."""
        scales = [scale or None for scale in self.options.scales or (0,)]
        sizes = [resized_size(size, scale, self.network_, self.options.long_side) for scale in scales]
        return max(sizes, key=lambda one: one.area)

    def _decision_scores(self, source: ImageSource) -> Tensor:
        return self.svm_.scores(self._feature_vector(source)[None])[0]

    def _predict_one(self, source: ImageSource, threshold: float | None) -> ClassificationResult:
        slope, offset = self.calibration_
        probabilities = torch.softmax(slope * self._decision_scores(source) + offset, 0)
        return ClassificationResult.top(probabilities, self.names_, source, threshold)

    def _scores(self, paths: Sequence[Path], *, quiet: bool) -> Tensor:
        return self.svm_.scores(self._features(paths, "Evaluating", quiet=quiet))

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


def _calibrate(scores: Tensor, targets: Tensor) -> Tensor:
    """Return slope and offset ``[2]`` that map decision scores ``[N, K]`` to logits of a softmax.

    They are those of a sigmoid for "the image is of the class" over all pairs of image and class; the softmax
    makes the probabilities of an image add up to 1.
    """
    return torch.tensor(fit_sigmoid(scores.flatten(), (targets > 0).flatten()))

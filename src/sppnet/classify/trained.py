"""A classifier that is a whole trained network: train, predict, evaluate, save, load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sppnet.classify.checkpoint import NAME as CHECKPOINT
from sppnet.classify.checkpoint import Training, data_digest, read_training
from sppnet.classify.kept import KeptWeights, is_main_process
from sppnet.classify.network import NetworkOptions, PyramidNetwork, make_network
from sppnet.classify.result import ClassificationResult
from sppnet.classify.samples import Sample, image_samples, object_samples
from sppnet.classify.train_options import TrainOptions
from sppnet.classify.training import TrainJob, check_extras, train_network
from sppnet.classify.views import ViewOptions, view_probabilities
from sppnet.config import as_config
from sppnet.data import (
    Division,
    ImageSource,
    classification_for,
    classification_to_fit,
    classification_to_measure,
    detection_to_fit,
    read_classification,
    read_image,
    read_scaled,
    splits,
)
from sppnet.errors import UserError
from sppnet.estimators import Estimator, SavedState, TensorSpec, fresh_fit
from sppnet.estimators.state import check_backbone, damaged
from sppnet.estimators.tensors import same_shapes
from sppnet.evaluate import classification_metrics
from sppnet.features.extract import resized_size
from sppnet.features.network import pick_device
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.runs import describe_run, lock_run
from sppnet.structures import ClassificationSet

_MEAN, _STD = "backbone.mean", "backbone.std"


@dataclass(init=False)
class NetworkClassifier(Estimator[ClassificationResult]):
    """Names images by a network that is trained end to end (paper section 1).

    As in scikit-learn, the constructor stores its arguments, `fit` learns what ends in ``_`` and returns
    self.

    Attributes:
        backbone: the convolutions: ``zf5``, ``convnet5``, ``overfeat5``, ``overfeat7``, ``builtin``,
            ``torchvision:NAME`` or ``timm:NAME``.
        weights: local weights of them, a safetensors file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        network: pooling and fully connected layers.
        train: the recipe.
        val_share: the share of the images of a data set without splits that `fit` holds out and `evaluate`
            measures. None is 0.2.
        views: the views of an image that `predict` and `evaluate` average; None takes the full image at
            the training's short side, and without pyramid pooling the centre crop.

    Single options of ``network`` and ``train`` can be given by their names.

    Examples:
        >>> NetworkClassifier("zf5/4", epochs=2, hidden=(64,)).train.epochs
        2
    """

    kind: ClassVar[str] = "network"

    backbone: str = "zf5"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    network: NetworkOptions = field(default_factory=NetworkOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    views: ViewOptions | None = None
    val_share: float | None = None

    def __init__(
        self,
        backbone: str = "zf5",
        weights: Path | str | None = None,
        device: str = "auto",
        seed: int = 0,
        network: NetworkOptions | None = None,
        train: TrainOptions | None = None,
        views: ViewOptions | None = None,
        val_share: float | None = None,
        **single: Any,
    ) -> None:
        values = {"backbone": backbone, "weights": weights, "device": device, "seed": seed, "views": views}
        options = {"network": network or NetworkOptions(), "train": train or TrainOptions()}
        self._store({**values, **options, "val_share": val_share}, single)

    @fresh_fit
    def fit(
        self,
        data: str | os.PathLike[str],
        split: str | None = None,
        *,
        held_split: str | None = None,
        layout: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        skip_bad: bool = False,
        quiet: bool = False,
    ) -> Self:
        """Train.

        Args:
            data: class folders, ILSVRC's layout, or images with boxes for ``train.objects``.
            split: the part to learn from; the part for training when None.
            held_split: the part whose error decides about plateaus and about the epoch whose weights are
                kept; ``val`` where there is one. Otherwise the loss in training decides about plateaus, and
                the last epoch's weights are kept.
            layout: of the data, where looking is not enough.
            folder: becomes a run when the first epoch ends and is brought up to date after every epoch:
                ``model.safetensors`` of the kept epoch, ``checkpoint.safetensors`` of the last,
                ``log.jsonl``, TensorBoard's files. None keeps nothing before `save`.
            resume: go on with the run in ``folder``; data, options and seed must be the same.
            overwrite: replace the run in ``folder``, which stays until the first epoch has ended.
            skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
            quiet: say nothing.

        Returns:
            self, with ``names_``, ``summary_``, ``fitted_on_`` (digests of the images trained on and held
            out) and ``network_``, whose weights are those of the kept epoch.

        Raises:
            UserError: data, options, weights or a checkpoint at fault; an old run is untouched then.
        """
        run = None if folder is None else Path(folder)
        if resume and run is None:
            raise UserError("resume", "a folder with a checkpoint", "none")
        self.train.check_for(bool(self.network.pyramid))
        check_extras(board=run is not None)
        started = read_training(run / CHECKPOINT) if resume and run is not None else None
        reserved = run is not None and is_main_process()
        with lock_run(run, overwrite=overwrite or resume) if reserved and run is not None else nullcontext():
            self._train(data, (split, held_split, layout), run, started, skip_bad=skip_bad, quiet=quiet)
        return self

    def _train(
        self,
        data: str | os.PathLike[str],
        parts: tuple[str | None, str | None, str | None],
        run: Path | None,
        started: Training | None,
        *,
        skip_bad: bool,
        quiet: bool,
    ) -> None:
        """Train, from the run's checkpoint where the training has ``started``."""
        watch = Stopwatch()
        samples, notes = self._samples(data, parts[0], parts[2], skip_bad=skip_bad)
        held = self._held_part(data, parts[1], parts[2])
        files = data_digest(data, samples, [] if held is None else held.samples)
        training = Training(self._training_config(), self.names_, files)
        if started is not None and run is not None:
            started.check_same(training, run / CHECKPOINT)
        self.training_ = training.digest()
        weights = None if self.weights is None else Path(self.weights)
        self.network_ = make_network(
            self.backbone, len(self.names_), self.network, self.train.crop, weights, self.seed
        )
        kept = KeptWeights(self, run, len(samples), resumed=started is not None)
        watch("setup")
        job = TrainJob(samples, self.train, self.seed, self.device, run, started is not None, training, quiet)
        end = train_network(self.network_, job, None if held is None else held.error, kept.note)
        watch("training")
        if not kept.tensors:
            raise UserError(run, "the weights of the kept epoch", "none", "Train without resume.")
        with damaged(run, "the weights of this network"):
            self.network_.load_state_dict(kept.tensors)
        self.network_.eval()
        self.summary_ = {
            "seconds": watch.seconds(),
            "training_seconds": round(end.seconds, 3),
            **self.summary_,
            "epochs": end.epoch,
            "notes": notes,
            "peak_memory_mb": peak_memory_mb(),
        }
        if run is not None and is_main_process():
            describe_run(run, {"summary": self.summary_})

    def _training_config(self) -> dict[str, object]:
        """The parameters that training depends on."""
        config = as_config(self)
        return {name: value for name, value in config.items() if name not in ("device", "views")}

    def _samples(
        self, data: str | os.PathLike[str], split: str | None, layout: str | None, *, skip_bad: bool
    ) -> tuple[list[Sample], list[str]]:
        """What to train on, and what is worth a note; the names and the record of the images are kept."""
        division = Division(self.val_share, self.seed)
        if self.train.objects:
            boxes, self.fitted_on_ = detection_to_fit(data, split, layout, division, skip_bad=skip_bad)
            self.names_ = boxes.names
            return object_samples(boxes), list(boxes.notes)
        images, self.fitted_on_ = classification_to_fit(data, split, layout, division, skip_bad=skip_bad)
        self.names_ = images.names
        return image_samples(images), list(images.notes)

    def _held_part(
        self, data: str | os.PathLike[str], split: str | None, layout: str | None
    ) -> _HeldOut | None:
        if split is None:
            split = "val" if not self.train.objects and "val" in splits(data, layout) else None
        if split is None:
            return None
        if self.train.objects:
            raise UserError("held_split", "none with train.objects", split)
        dataset = classification_for(read_classification(data, split, layout), self.names_)
        if not len(dataset):
            raise UserError("held_split", f"images in split {split!r}", "none")
        return _HeldOut(image_samples(dataset), self.train)

    def test_views(self) -> ViewOptions:
        """The views that `predict` and `evaluate` average."""
        if self.views is not None:
            return self.views
        if self.network_.any_size:
            return ViewOptions(positions="none", flip=False, full=self.train.short_side)
        side = self.train.size(0, self.seed)
        scale = -(-self.train.short_side * side // self.train.crop)
        return ViewOptions((scale,), side, "centre", flip=False)

    def _read(self, source: ImageSource) -> Tensor:
        """An image for `test_views`; a very large one is averaged down while it is decoded."""
        views = self.test_views()
        scales = (*(views.scales if views.positions != "none" else ()), views.full or 1)
        return read_scaled(
            source, lambda size: resized_size(size, max(scales), self.network_.backbone)
        ).values

    def _predict_one(self, source: ImageSource, threshold: float | None) -> ClassificationResult:
        probabilities = view_probabilities(self.network_, self._read(source), self.test_views())
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
        """Measure on labelled images.

        Args:
            data: images whose classes are among the classifier's.
            split: the part to measure on; the part for validation or test when None.
            layout: of the data, where looking is not enough.
            skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
            quiet: no progress bars.

        Returns:
            What `sppnet.evaluate.classification_metrics` returns: "accuracy", "mean_class_accuracy",
            "top5", "per_class", ...; and "held_out", "trained_on" and "notes" as `Classifier.evaluate`.

        Raises:
            UserError: not trained, or data at fault.
        """
        self._check_fitted()
        dataset, facts = self.to_measure(data, split, layout=layout, skip_bad=skip_bad)
        views = self.test_views()
        items = track(dataset.items, "Evaluating", quiet=quiet)
        scores = torch.stack([view_probabilities(self.network_, self._read(i.path), views) for i in items])
        labels = torch.tensor([item.label for item in dataset.items])
        metrics = classification_metrics(scores, labels, self.names_)
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
            UserError: not trained, or data at fault.
        """
        self._check_fitted()
        return classification_to_measure(data, split, layout, self.names_, self.fitted_on_, skip_bad=skip_bad)

    def write_run(self, folder: Path, *, keep_log: bool) -> None:
        """Write the run of a training that goes on; `fit` does it after every epoch.

        Raises:
            UserError: the folder cannot be written.
        """
        self._save(folder, overwrite=True, keep_log=keep_log)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        # The normalisation travels with the weights, which are worth nothing under another one.
        backbone = self.network_.backbone
        tensors = {**self.network_.state_dict(), _MEAN: backbone.mean, _STD: backbone.std}
        return tensors, {"network": self.network_.spec(), "training": self.training_}

    def _restore(self, state: SavedState) -> None:
        spec = state.mapping("network")
        classes = state.number(spec, "classes", 1, 2**31)
        side = state.number(spec, "side", 0 if self.network.pyramid else 6, 4096)
        if classes != len(state.names):
            raise UserError(state.described, f"{classes} class names", len(state.names), "Train again.")
        backbone = state.architecture(state.mapping("backbone", spec))
        with torch.device("meta"):  # a size from a damaged file must not allocate anything
            shapes = PyramidNetwork(backbone, classes, self.network, side).state_dict()
        table = list(same_shapes(shapes))
        if _MEAN in state.tensors:  # earlier versions have them in the description only
            table += [TensorSpec(name, (1, 3, 1, 1)) for name in (_MEAN, _STD)]
        state.check(table)
        for name, buffer in ((_MEAN, backbone.mean), (_STD, backbone.std)):
            if name in state.tensors and not torch.allclose(state.tensors.pop(name), buffer, rtol=1e-5):
                raise UserError(state.file, f"{name} as model.json has it", "another", "Train again.")
        network = PyramidNetwork(backbone, classes, self.network, side)
        network.load_state_dict(state.tensors)
        check_backbone(backbone, state.folder)
        self.network_ = network.to(pick_device(self.device)).eval()
        training = state.model.get("training", "")
        self.training_ = training if isinstance(training, str) else ""


class _HeldOut:
    """The error on the centre crops of held-out images."""

    def __init__(self, samples: Sequence[Sample], options: TrainOptions) -> None:
        self.samples = samples
        side = options.size(0, 0)
        self.views = ViewOptions(
            (max(side, options.short_side * side // options.crop),), side, "centre", flip=False
        )

    def error(self, network: PyramidNetwork) -> float:
        """Share of the images taken for another class."""
        wrong = 0
        for sample in self.samples:
            scores = view_probabilities(network, read_image(sample.path), self.views)
            wrong += int(scores.argmax()) != sample.label
        return wrong / len(self.samples)

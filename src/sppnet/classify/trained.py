"""A classifier that is a whole trained network: train, predict, evaluate, save, load."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor

from sppnet.backbones import backbone_from_spec
from sppnet.classify.checkpoint import write_tensors
from sppnet.classify.network import NetworkOptions, PyramidNetwork, make_network
from sppnet.classify.result import ClassificationResult
from sppnet.classify.samples import Sample, image_samples, object_samples
from sppnet.classify.train_options import TrainOptions
from sppnet.classify.training import EpochReport, TrainJob, train_network
from sppnet.classify.views import ViewOptions, view_probabilities
from sppnet.config import as_config, from_config
from sppnet.data import (
    ImageSource,
    classification_for,
    classification_to_measure,
    read_classification,
    read_detection,
    read_image,
    read_scaled,
    splits,
)
from sppnet.errors import UserError
from sppnet.evaluate import classification_metrics
from sppnet.features.extract import resized_size
from sppnet.features.network import pick_device
from sppnet.predicting import FailedSource, predict_each, predict_sources
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.runs import append_log, load_run, save_run
from sppnet.structures import ClassificationSet

_WEIGHTS = "model.safetensors"


@dataclass
class NetworkClassifier:
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
        views: the views of an image that `predict` and `evaluate` average; None takes the full image at
            the training's short side, and without pyramid pooling the centre crop.
    """

    backbone: str = "zf5"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    network: NetworkOptions = field(default_factory=NetworkOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    views: ViewOptions | None = None

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
        quiet: bool = False,
    ) -> Self:
        """Train.

        Args:
            data: class folders, ILSVRC's layout, or images with boxes for ``train.objects``.
            split: the part to learn from; the part for training when None.
            held_split: the part whose error decides about plateaus and the best epoch; ``val`` where there
                is one. Otherwise the loss in training decides about plateaus, and the last epoch is the best.
            layout: of the data, where looking is not enough.
            folder: becomes a run at once and after every epoch: ``model.safetensors`` of the best epoch,
                ``checkpoint.safetensors`` of the last, ``log.jsonl``, TensorBoard's files. None keeps
                nothing before `save`.
            resume: go on with the run in ``folder``.
            overwrite: replace the run in ``folder``.
            quiet: say nothing.

        Returns:
            self, with ``names_``, ``summary_`` and ``network_``, whose weights are those of the best epoch.

        Raises:
            UserError: data, options, weights or a checkpoint at fault.
        """
        watch = Stopwatch()
        samples, self.names_ = self._samples(data, split, layout)
        weights = None if self.weights is None else Path(self.weights)
        self.network_ = make_network(
            self.backbone, len(self.names_), self.network, self.train.crop, weights, self.seed
        )
        held = self._held_part(data, held_split, layout)
        self.summary_: dict[str, Any] = {"images": len(samples), "epochs": 0}
        run = None if folder is None else Path(folder)
        if run is not None and not resume:
            self.save(run, overwrite=overwrite)
        best = _Best(self, run, {name: value.clone() for name, value in self.network_.state_dict().items()})
        if resume and run is not None:
            best.tensors = load_run(run, "network").tensors
        watch("setup")
        job = TrainJob(samples, self.train, self.seed, self.device, run, resume, quiet)
        end = train_network(self.network_, job, None if held is None else held.error, best.note)
        watch("training")
        self.network_.load_state_dict(best.tensors)
        self.network_.eval()
        self.summary_ = {
            "seconds": watch.seconds(),
            "training_seconds": round(end.seconds, 3),
            "images": len(samples),
            "epochs": end.epoch,
            "best": end.plateau.best,
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def _samples(
        self, data: str | os.PathLike[str], split: str | None, layout: str | None
    ) -> tuple[list[Sample], tuple[str, ...]]:
        if self.train.objects:
            boxes = read_detection(data, split, layout)
            return object_samples(boxes), boxes.names
        images = read_classification(data, split, layout)
        return image_samples(images), images.names

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
            UserError: not trained, or an image that cannot be read.
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
        return classification_to_measure(data, split, layout, self.names_, None, skip_bad=skip_bad)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder that `load` and ``sppnet predict`` need nothing beside.

        Raises:
            UserError: not trained, or a folder that may not be written.
        """
        self._check_fitted()
        model: dict[str, object] = {
            "names": list(self.names_),
            "network": self.network_.spec(),
            "summary": self.summary_,
        }
        tensors = self.network_.state_dict()
        return save_run(Path(folder), "network", as_config(self), tensors, model, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Self:
        """Read a run folder that `save` or `fit` wrote.

        Raises:
            UserError: no run of a trained network of this version, or a damaged one.
        """
        run = load_run(Path(folder), "network")
        ours = from_config(cls, run.config, run.folder / "config.toml")
        ours.device = device
        model = cast("dict[str, Any]", run.model)
        try:
            spec = model["network"]
            ours.names_ = tuple(model["names"])
            ours.summary_ = dict(model["summary"])
            convolutions = backbone_from_spec(spec["backbone"])
            network = PyramidNetwork(convolutions, int(spec["classes"]), ours.network, int(spec["side"]))
            network.load_state_dict(run.tensors)
        except (KeyError, RuntimeError) as error:
            raise UserError(run.folder, "a whole run", f"one at fault: {error}", "Train again.") from error
        ours.network_ = network.to(pick_device(device)).eval()
        return ours

    def _check_fitted(self) -> None:
        if not hasattr(self, "network_"):
            raise UserError(
                "NetworkClassifier", "a trained classifier", "one that is not", "Call fit or load."
            )


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


class _Best:
    """Keeps the weights of the best epoch, in memory and in the run; the last where nothing is held out."""

    def __init__(self, owner: NetworkClassifier, folder: Path | None, tensors: dict[str, Tensor]) -> None:
        self.owner = owner
        self.folder = folder
        self.tensors = tensors

    def note(self, network: PyramidNetwork, report: EpochReport) -> None:
        if report.best:
            self.tensors = {
                name: value.detach().cpu().clone() for name, value in network.state_dict().items()
            }
        if self.folder is None:
            return
        if report.best:
            write_tensors(self.folder / _WEIGHTS, self.tensors)
        append_log(self.folder, {"verb": "train", **asdict(report)})
        _board(self.folder, report)


def _board(folder: Path, report: EpochReport) -> None:
    """One point of each of TensorBoard's curves."""
    from sppnet.errors import MissingExtraError

    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "train", "training") from error
    with SummaryWriter(str(folder / "tensorboard"), filename_suffix=f".{report.epoch}") as board:
        for name in ("size", "rate", "loss", "error", "held_error"):
            value = getattr(report, name)
            if value is not None:
                board.add_scalar(name, value, report.epoch)

"""Image classification with a network that is trained end to end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sppnet.classify.base import ImageClassifier
from sppnet.classify.best import BestWeights, is_main_process
from sppnet.classify.checkpoint import NAME as CHECKPOINT
from sppnet.classify.checkpoint import Training, data_digest, read_training
from sppnet.classify.network import NetworkOptions, PyramidNetwork, make_network
from sppnet.classify.result import ClassificationResult
from sppnet.classify.train_options import TrainOptions
from sppnet.classify.training import TrainJob, check_extras, train_network
from sppnet.classify.training_data import read_held_out, read_training_data
from sppnet.classify.views import ViewOptions, default_views, read_for_views, view_probabilities
from sppnet.config import as_config
from sppnet.data import Division, ImageSource
from sppnet.errors import UserError
from sppnet.estimators import SavedState, TensorSpec, fresh_fit
from sppnet.estimators.state import check_backbone, damaged
from sppnet.estimators.tensors import same_shapes
from sppnet.features.network import pick_device
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.runs import describe_run, lock_run

_MEAN, _STD = "backbone.mean", "backbone.std"


@dataclass(init=False)
class NetworkClassifier(ImageClassifier):
    """Classify images with a network that is trained end to end (He et al. 2015, section 3.1).

    As in scikit-learn, the constructor only stores its arguments, fitted attributes end in ``_``, and `fit`
    returns self.

    Attributes:
        backbone: the convolutions: ``zf5``, ``convnet5``, ``overfeat5``, ``overfeat7``, ``builtin``,
            ``torchvision:NAME`` or ``timm:NAME``.
        weights: local weights of the backbone, a safetensors file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: seed of all random numbers.
        network: pooling and fully connected layers.
        train: the training options.
        val_share: share of the images that `fit` holds out of a data set without splits and `evaluate` uses.
            None is 0.2.
        views: the views of an image that `predict` and `evaluate` average. None is the full image at the
            short side of training or, without pyramid pooling, the centre crop.

    Single options of ``network`` and ``train`` can be given by name.

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
        """Train the network.

        Args:
            data: class folders, the layout of ILSVRC, or images with boxes for ``train.objects``.
            split: the split to train on; the training split when None.
            held_split: the split whose error determines the plateaus and the best epoch; ``val`` if it
                exists. Without one, the training loss determines the plateaus, and the last epoch is the
                best one.
            layout: the layout of the data; detected automatically when None.
            folder: the run folder, written after every epoch: ``model.safetensors`` of the best epoch,
                ``checkpoint.safetensors`` of the last one, ``log.jsonl`` and TensorBoard files. None writes
                nothing.
            resume: continue the run in ``folder``; data, options and seed must be the same.
            overwrite: replace the run in ``folder``, which stays until the first epoch has ended.
            skip_bad: skip damaged images; otherwise an error lists all of them.
            quiet: print nothing.

        Returns:
            self, with ``names_``, ``summary_``, ``fitted_on_`` (digests of the training and the held-out
            images) and ``network_``, with the weights of the best epoch.

        Raises:
            UserError: the data, the options, the weights or the checkpoint are invalid; an existing run is
                unchanged then.
        """
        run = None if folder is None else Path(folder)
        if resume and run is None:
            raise UserError("resume", "a folder with a checkpoint", "none")
        self.train.check_for(bool(self.network.pyramid))
        check_extras(board=run is not None)
        started = read_training(run / CHECKPOINT) if resume and run is not None else None
        reserved = run if is_main_process() else None
        with nullcontext() if reserved is None else lock_run(reserved, overwrite=overwrite or resume):
            self._train(data, (split, held_split, layout), run, started, skip_bad=skip_bad, quiet=quiet)
        return self

    def _train(
        self,
        data: str | os.PathLike[str],
        selection: tuple[str | None, str | None, str | None],
        run: Path | None,
        started: Training | None,
        *,
        skip_bad: bool,
        quiet: bool,
    ) -> None:
        """Train, from the checkpoint of the run if the training has ``started``."""
        watch = Stopwatch()
        split, held_split, layout = selection
        division = Division(self.val_share, self.seed)
        read = read_training_data(data, split, layout, division, self.train, skip_bad=skip_bad)
        self.names_, self.fitted_on_ = read.names, read.fitted_on
        held = read_held_out(data, held_split, layout, self.train, self.names_)
        samples = read.samples
        files = data_digest(data, samples, [] if held is None else held.samples)
        training = Training(self._training_config(), self.names_, files)
        if started is not None and run is not None:
            started.check_same(training, run / CHECKPOINT)
        self.training_ = training.digest()
        weights = None if self.weights is None else Path(self.weights)
        self.network_ = make_network(
            self.backbone, len(self.names_), self.network, self.train.crop, weights, self.seed
        )
        best = BestWeights(self, run, len(samples), resumed=started is not None)
        watch("setup")
        job = TrainJob(samples, self.train, self.seed, self.device, run, started is not None, training, quiet)
        end = train_network(self.network_, job, None if held is None else held.error, best.update)
        watch("training")
        if not best.tensors:
            raise UserError(run, "the weights of the best epoch", "none", "Train without resume.")
        with damaged(run, "the weights of this network"):
            self.network_.load_state_dict(best.tensors)
        self.network_.eval()
        self.summary_ = {
            "seconds": watch.seconds(),
            "training_seconds": round(end.seconds, 3),
            **self.summary_,
            "epochs": end.epoch,
            "notes": read.notes,
            "peak_memory_mb": peak_memory_mb(),
        }
        if run is not None and is_main_process():
            describe_run(run, {"summary": self.summary_})

    def _training_config(self) -> dict[str, object]:
        """Return the parameters that training depends on."""
        return {name: value for name, value in as_config(self).items() if name not in ("device", "views")}

    def test_views(self) -> ViewOptions:
        """Return the views that `predict` and `evaluate` average."""
        return self.views or default_views(self.network_, self.train, self.seed)

    def _probabilities(self, source: ImageSource, views: ViewOptions) -> Tensor:
        return view_probabilities(self.network_, read_for_views(source, self.network_, views), views)

    def _predict_one(self, source: ImageSource, threshold: float | None) -> ClassificationResult:
        probabilities = self._probabilities(source, self.test_views())
        return ClassificationResult.top(probabilities, self.names_, source, threshold)

    def _scores(self, paths: Sequence[Path], *, quiet: bool) -> Tensor:
        views = self.test_views()
        tracked = track(paths, "Evaluating", quiet=quiet)
        return torch.stack([self._probabilities(path, views) for path in tracked])

    def write_run(self, folder: Path, *, keep_log: bool) -> None:
        """Write the run during training; `fit` calls it after every epoch.

        Raises:
            UserError: the folder cannot be written.
        """
        self._save(folder, overwrite=True, keep_log=keep_log)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        # The weights depend on the normalisation of the backbone, which is saved with them.
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
        with torch.device("meta"):  # a size from a damaged file must not allocate memory
            shapes = PyramidNetwork(backbone, classes, self.network, side).state_dict()
        table = list(same_shapes(shapes))
        if _MEAN in state.tensors:  # earlier versions saved them in the description only
            table += [TensorSpec(name, (1, 3, 1, 1)) for name in (_MEAN, _STD)]
        state.check(table)
        for name, buffer in ((_MEAN, backbone.mean), (_STD, backbone.std)):
            if name in state.tensors and not torch.allclose(state.tensors.pop(name), buffer, rtol=1e-5):
                raise UserError(state.file, f"{name} as in model.json", "other values", "Train again.")
        network = PyramidNetwork(backbone, classes, self.network, side)
        network.load_state_dict(state.tensors)
        check_backbone(backbone, state.folder)
        self.network_ = network.to(pick_device(self.device)).eval()
        training = state.model.get("training", "")
        self.training_ = training if isinstance(training, str) else ""

"""``sppnet train classify``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from sppnet.classify import NetworkOptions, TrainOptions
from sppnet.cli.estimators import Device, Layout
from sppnet.cli.fit import fit_summary, show_fit
from sppnet.cli.flag_table import ADVANCED, Group
from sppnet.cli.flags import ConfigFile, UsageError, read_flags
from sppnet.cli.limits import pixel_limit
from sppnet.cli.paths import DataPath, NewRun, WeightsPath, check_extra
from sppnet.cli.screen import opened_screen
from sppnet.config import from_config
from sppnet.errors import UserError
from sppnet.runs import check_out

if TYPE_CHECKING:
    from sppnet.classify import NetworkClassifier

__all__ = ["TrainClassify", "run"]

_CHECKPOINT = "checkpoint.safetensors"
_NETWORK = Group("Network", shown=("pyramid",))
_TRAINING = Group("Training", shown=("sizes", "epochs", "batch", "rate", "precision", "workers"))


@dataclass(frozen=True)
class TrainClassify:
    """Train a network for images of any size, by default with the settings of the paper.

    After the first epoch, OUT is a run with the weights of the best epoch, the checkpoint of the last epoch,
    log.jsonl and TensorBoard files. Several GPUs: accelerate launch --module sppnet train classify ...

    Attributes:
        data: class folders, the layout of ILSVRC, or images with boxes for --objects.
        out: run folder to write.
        split: split to train on; the training split by default.
        held_split: split whose error detects plateaus and selects the best epoch; val by default. Without
            such a split the last epoch is used.
        format: layout of the data, if it cannot be detected.
        backbone: zf5, convnet5, overfeat5, overfeat7 (zf5/4 has a quarter of the channels), builtin,
            torchvision:NAME or timm:NAME.
        weights: local weights of the backbone, a safetensors file.
        device: device to compute on.
        seed: seed of all random numbers.
        val_share: fraction of the images held out for sppnet evaluate if the data have no splits; 0.2 by
            default, 0 to train on all images.
        skip_bad: skip damaged images instead of reporting them as an error.
        max_megapixels: maximum size of images; 179 by default, the limit of Pillow.
        config: TOML file with values for these flags; flags on the command line win.
        resume: continue the run in OUT from its checkpoint, with the same data and flags.
        json: print one JSON document on stdout and everything else on stderr.
        overwrite: replace the run in OUT.
        network: options of the network.
        train: options of the training.
    """

    data: Annotated[DataPath, tyro.conf.Positional]
    out: NewRun
    split: str | None = None
    held_split: Annotated[str | None, ADVANCED] = None
    format: Annotated[Layout | None, ADVANCED] = None
    backbone: str = "zf5"
    weights: WeightsPath = None
    device: Device = "auto"
    seed: int = 0
    val_share: Annotated[float | None, ADVANCED] = None
    skip_bad: bool = False
    max_megapixels: Annotated[float | None, ADVANCED] = None
    config: ConfigFile = None
    resume: bool = False
    json: bool = False
    overwrite: bool = False
    network: Annotated[NetworkOptions, tyro.conf.arg(name=""), _NETWORK] = field(
        default_factory=NetworkOptions
    )
    train: Annotated[TrainOptions, tyro.conf.arg(name=""), _TRAINING] = field(default_factory=TrainOptions)


def run(words: list[str]) -> int:
    """Train and write the run."""
    flags = read_flags(TrainClassify, "sppnet train classify", words)
    if not flags.resume:
        check_out(flags.out, overwrite=flags.overwrite)
    elif not (flags.out / _CHECKPOINT).is_file():
        raise UserError(flags.out / _CHECKPOINT, "the checkpoint of a training run", "no such file")
    for package in ("accelerate", "tensorboard"):
        check_extra(package, "train", "training")
    classifier = _resumed(flags) if flags.resume else _requested(flags)
    if not flags.resume:
        classifier.check_params()
    with opened_screen(json=flags.json) as screen, pixel_limit(flags.max_megapixels):
        classifier.fit(
            flags.data,
            flags.split,
            held_split=flags.held_split,
            layout=flags.format,
            folder=flags.out,
            resume=flags.resume,
            overwrite=flags.overwrite,
            skip_bad=flags.skip_bad,
        )
        show_fit(screen, classifier, fit_summary(classifier, flags.out, flags.data))
    return 0


def _requested(flags: TrainClassify) -> NetworkClassifier:
    from sppnet.classify import NetworkClassifier

    return NetworkClassifier(
        backbone=flags.backbone,
        weights=flags.weights,
        device=flags.device,
        seed=flags.seed,
        network=flags.network,
        train=flags.train,
        val_share=flags.val_share,
    )


def _resumed(flags: TrainClassify) -> NetworkClassifier:
    """Load the classifier of the run to resume; reject flags with other values."""
    from sppnet.classify import NetworkClassifier
    from sppnet.classify.checkpoint import read_training

    path = flags.out / _CHECKPOINT
    saved = from_config(NetworkClassifier, read_training(path).config, path)
    asked = _requested(flags)
    default = NetworkClassifier()
    for name in ("backbone", "weights", "seed", "network", "train", "val_share"):
        value = getattr(asked, name)
        if value not in (getattr(default, name), getattr(saved, name)):
            raise UserError(flags.out, f"{name} of the run", value, "Drop the flag.")
    if flags.overwrite:
        raise UsageError("sppnet train classify", "--resume and --overwrite exclude each other")
    saved.device = flags.device
    return saved

"""``sppnet train classify``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sppnet.classify import NetworkClassifier, NetworkOptions, TrainOptions
from sppnet.classify.checkpoint import read_training
from sppnet.cli.estimators import Device
from sppnet.cli.flags import ConfigFile, UsageError, read_flags
from sppnet.cli.screen import opened_screen, summary_rows
from sppnet.config import from_config
from sppnet.errors import UserError
from sppnet.runs import check_out

__all__ = ["TrainClassify", "run"]


@dataclass(frozen=True)
class TrainClassify:
    """Train a network for images of any size, by the paper's recipe unless told otherwise.

    OUT is a run as soon as the first epoch ends: the weights of the kept epoch, the checkpoint of the last,
    log.jsonl, TensorBoard's files. For several GPUs: accelerate launch --module sppnet train classify ...

    Attributes:
        data: class folders, ILSVRC's layout, or images with boxes for --objects.
        out: the run folder to write.
        split: which part of the data to learn from; the part for training when left out.
        held_split: the part whose error decides about plateaus and the epoch that is kept; val where there is
            one. Without one the last epoch is kept.
        format: the layout of the data, where looking is not enough.
        backbone: zf5, convnet5, overfeat5, overfeat7 (zf5/4 has a quarter of the channels), builtin, lite0,
            lite2, torchvision:NAME or timm:NAME.
        weights: local weights of the backbone, a safetensors file.
        device: where to compute.
        seed: of everything random.
        val_share: share of the images of a data set without splits that is held out for sppnet evaluate; 0.2
            when left out, 0 trains on all images.
        skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
        config: a TOML file with values for these flags; flags on the command line win.
        resume: go on with the run in OUT exactly where its checkpoint is; its flags are kept, and the data
            must be the same.
        json: one JSON document on stdout, everything else on stderr.
        overwrite: replace the run that is in OUT.
        network: what stands behind the convolutions.
        train: the recipe.
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    out: Path
    split: str | None = None
    held_split: str | None = None
    format: str | None = None
    backbone: str = "zf5"
    weights: Path | None = None
    device: Device = "auto"
    seed: int = 0
    val_share: float | None = None
    skip_bad: bool = False
    config: ConfigFile = None
    resume: bool = False
    json: bool = False
    overwrite: bool = False
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = field(default_factory=NetworkOptions)
    train: Annotated[TrainOptions, tyro.conf.arg(name="")] = field(default_factory=TrainOptions)


def run(words: list[str]) -> int:
    """Train and write the run."""
    flags = read_flags(TrainClassify, "sppnet train classify", words)
    classifier = _kept(flags) if flags.resume else _asked(flags)
    if not flags.resume:
        classifier.check_params()
        check_out(flags.out, overwrite=flags.overwrite)
    with opened_screen(json=flags.json) as screen:
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
        learned = {
            "run": flags.out,
            "data": flags.data,
            "classes": list(classifier.names_),
            **classifier.summary_,
        }
        screen.table(f"{flags.out}: {len(classifier.names_)} classes", ("", "value"), summary_rows(learned))
        for note in classifier.summary_["notes"]:
            screen.say(f"Note: {note}")
        screen.say(f"Next: sppnet evaluate {flags.out} DATA, or sppnet predict {flags.out} IMAGE")
        screen.document(learned)
    return 0


def _asked(flags: TrainClassify) -> NetworkClassifier:
    return NetworkClassifier(
        backbone=flags.backbone,
        weights=flags.weights,
        device=flags.device,
        seed=flags.seed,
        network=flags.network,
        train=flags.train,
        val_share=flags.val_share,
    )


def _kept(flags: TrainClassify) -> NetworkClassifier:
    """The classifier of the run to go on with; flags that say something else are refused."""
    path = flags.out / "checkpoint.safetensors"
    kept = from_config(NetworkClassifier, read_training(path).config, path)
    asked = _asked(flags)
    default = NetworkClassifier()
    for name in ("backbone", "weights", "seed", "network", "train", "val_share"):
        value = getattr(asked, name)
        if value not in (getattr(default, name), getattr(kept, name)):
            raise UserError(flags.out, f"{name} as the run has it, or left out", value, "Drop the flag.")
    if flags.overwrite:
        raise UsageError("sppnet train classify", "--resume and --overwrite exclude each other")
    kept.device = flags.device
    return kept

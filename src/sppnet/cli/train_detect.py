"""``sppnet train detect``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sppnet.cli.fit import FitFlags, fit_and_save
from sppnet.cli.flags import read_flags
from sppnet.detect.paper import PaperDetector, PaperOptions

__all__ = ["TrainDetect", "run"]


@dataclass(frozen=True)
class TrainDetect(FitFlags):
    """Train a detector as the paper does: fully connected layers, SVMs and box regressors; or as R-CNN does.

    Every stage is kept when it is finished. The same command after an interruption goes on from there.

    Attributes:
        options: every stage's.
        cache: a folder for finished stages, which several runs may share; OUT with .stages behind it when
            left out. It may be removed when the run is written.
    """

    options: Annotated[PaperOptions, tyro.conf.arg(name="")] = field(default_factory=PaperOptions)
    cache: Path | None = None


def run(words: list[str]) -> int:
    """Train a detector and write its run."""
    flags = read_flags(TrainDetect, "sppnet train detect", words)
    cache = flags.cache or flags.out.with_name(flags.out.name + ".stages")
    detector = PaperDetector(
        backbone=flags.backbone,
        weights=flags.weights,
        device=flags.device,
        seed=flags.seed,
        val_share=flags.val_share,
        options=flags.options,
        cache=cache,
    )
    return fit_and_save(detector, flags)

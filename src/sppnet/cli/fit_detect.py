"""``sppnet fit detect``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from sppnet.cli.fit import FitFlags, fit_and_save
from sppnet.cli.flag_table import Group
from sppnet.cli.flags import read_flags
from sppnet.detect.options import DetectorOptions
from sppnet.runs import check_out

__all__ = ["FitDetect", "run"]

_SHOWN = Group("Detector", shown=("short-side", "levels", "proposals", "tile", "C", "nms"))


@dataclass(frozen=True)
class FitDetect(FitFlags):
    """Fit a detector: SVMs and box regressors on frozen features, pooled from the windows of each image.

    Attributes:
        options: options of the detector.
    """

    options: Annotated[DetectorOptions, tyro.conf.arg(name=""), _SHOWN] = field(
        default_factory=DetectorOptions
    )


def run(words: list[str]) -> int:
    """Fit a detector and write its run."""
    flags = read_flags(FitDetect, "sppnet fit detect", words)
    check_out(flags.out, overwrite=flags.overwrite)
    from sppnet.detect import Detector

    detector = Detector(
        backbone=flags.backbone,
        weights=flags.weights,
        device=flags.device,
        seed=flags.seed,
        val_share=flags.val_share,
        options=flags.options,
    )
    return fit_and_save(detector, flags)

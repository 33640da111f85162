"""``sppnet fit detect``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from sppnet.cli.fit import FitFlags, fit_and_save
from sppnet.cli.flags import read_flags
from sppnet.cli.paths import check_data_path
from sppnet.detect.options import DetectorOptions

__all__ = ["FitDetect", "run"]


@dataclass(frozen=True)
class FitDetect(FitFlags):
    """Fit a detector: SVMs and box regressors on pooled windows of frozen features.

    Attributes:
        options: how windows are made, pooled, scored and merged.
    """

    options: Annotated[DetectorOptions, tyro.conf.arg(name="")] = field(default_factory=DetectorOptions)


def run(words: list[str]) -> int:
    """Fit a detector and write its run."""
    flags = read_flags(FitDetect, "sppnet fit detect", words)
    check_data_path(flags.data)
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

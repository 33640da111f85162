"""The report of an epoch of training."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from sppnet.classify.train_options import TrainOptions


@dataclass(frozen=True)
class EpochReport:
    """The results of an epoch.

    Attributes:
        epoch: number of finished epochs.
        size: side of the training images; 0 for their own shapes.
        rate: learning rate.
        loss: mean cross-entropy of the training images during the epoch.
        error: share of the training images that were classified wrongly.
        held_error: error on the held-out images; None without.
        best: whether the weights are saved: the held-out error is the lowest so far, or nothing is held out.
        seconds: training time so far.
        left: estimated seconds of the remaining epochs.
    """

    epoch: int
    size: int
    rate: float
    loss: float
    error: float
    held_error: float | None
    best: bool
    seconds: float
    left: float


def print_report(result: EpochReport, options: TrainOptions, *, quiet: bool) -> None:
    """Print a report to stderr, unless ``quiet``."""
    if quiet:
        return
    epoch = f"Epoch {result.epoch} of {options.epochs}"
    held = "" if result.held_error is None else f", held out {100 * result.held_error:.1f}%"
    print(
        f"{epoch}: loss {result.loss:.3f}, error {100 * result.error:.1f}%{held}, "
        f"{result.seconds:.0f} s, {result.left:.0f} s left",
        file=sys.stderr,
    )

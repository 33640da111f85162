"""``sppnet benchmark``: our time against peers', side by side in one run."""

from __future__ import annotations

from sppnet.cli.jobs import run_job

__all__ = ["SUBJECTS", "run"]

SUBJECTS = {
    "pooling": "pooling of maps and regions beside torchvision's and torch's",
    "fitting": "a detector and a classifier from labelled images, beside Faster R-CNN, R-CNN, LinearSVC",
    "detection": "features of windows: pooled from maps against cropped, warped and convolved (R-CNN)",
    "backbones": "the network in the package beside SqueezeNet 1.0",
    "classification": "views on the maps against views by crops; training at several sizes",
}


def run(words: list[str]) -> int:
    """Dispatch on the subject."""
    return run_job("benchmark", SUBJECTS, words, "...")

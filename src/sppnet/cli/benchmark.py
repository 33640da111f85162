"""``sppnet benchmark``: times compared with those of peers, measured in one run."""

from __future__ import annotations

from sppnet.cli.jobs import run_job

__all__ = ["JOBS", "run"]

JOBS = {
    "pooling": "pooling of maps and regions, against torch and torchvision",
    "fitting": "fitting and prediction, against Faster R-CNN, R-CNN and LinearSVC",
    "detection": "features of windows: pooled from maps, against crops through the network (R-CNN)",
    "backbones": "the bundled network, against SqueezeNet 1.0",
    "classification": "views pooled from maps, against crops; training at several sizes",
}


def run(words: list[str]) -> int:
    """Run a benchmark."""
    return run_job("benchmark", JOBS, words, "...")

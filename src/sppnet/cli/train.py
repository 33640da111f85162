"""``sppnet train classify | detect``: training by backpropagation, as in the paper."""

from __future__ import annotations

from sppnet.cli.jobs import run_job

__all__ = ["JOBS", "run"]

JOBS = {
    "classify": "a network for images of any size, by single-size or multi-size training",
    "detect": "a detector: fine-tuned fully connected layers, SVMs and box regressors",
}


def run(words: list[str]) -> int:
    """Run a job."""
    return run_job("train", JOBS, words, "DATA --out RUN ...")

"""``sppnet train classify | detect``: the paper's training, by backpropagation."""

from __future__ import annotations

from sppnet.cli.jobs import run_job

__all__ = ["JOBS", "run"]

JOBS = {
    "classify": "a network for images of any size, single- or multi-size",
    "detect": "fine-tuning of the fully connected layers, then SVMs and box regressors",
}


def run(words: list[str]) -> int:
    """Dispatch on the job."""
    return run_job("train", JOBS, words, "DATA --out RUN ...")

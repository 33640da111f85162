"""``sppnet train detect``: ``sppnet fit detect`` with the preset of the paper and cached stages."""

from __future__ import annotations

from sppnet.cli.fit_detect import FitDetect, fit_detect

__all__ = ["FitDetect", "run"]


def run(words: list[str]) -> int:
    """Fit a detector with the pipeline of the paper and write its run."""
    return fit_detect("sppnet train detect", words, "paper")

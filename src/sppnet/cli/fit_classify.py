"""``sppnet fit classify``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from sppnet.classify.options import ClassifierOptions
from sppnet.cli.fit import FitFlags, fit_and_save
from sppnet.cli.flags import read_flags
from sppnet.cli.paths import check_data_path

__all__ = ["FitClassify", "run"]


@dataclass(frozen=True)
class FitClassify(FitFlags):
    """Fit a classifier: linear SVM on the pooled features of whole images, at any size and shape.

    Attributes:
        options: how images are scaled and pooled, and how the SVM is trained.
    """

    options: Annotated[ClassifierOptions, tyro.conf.arg(name="")] = field(default_factory=ClassifierOptions)


def run(words: list[str]) -> int:
    """Fit a classifier and write its run."""
    flags = read_flags(FitClassify, "sppnet fit classify", words)
    check_data_path(flags.data)
    from sppnet.classify import Classifier

    classifier = Classifier(
        backbone=flags.backbone,
        weights=flags.weights,
        device=flags.device,
        seed=flags.seed,
        val_share=flags.val_share,
        options=flags.options,
    )
    return fit_and_save(classifier, flags)

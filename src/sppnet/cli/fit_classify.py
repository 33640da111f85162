"""``sppnet fit classify``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from sppnet.classify.options import ClassifierOptions
from sppnet.cli.fit import FitFlags, fit_and_save
from sppnet.cli.flag_table import Group
from sppnet.cli.flags import read_flags
from sppnet.runs import check_out

__all__ = ["FitClassify", "run"]

_SHOWN = Group("Classifier", shown=("scales", "levels", "flip", "C"))


@dataclass(frozen=True)
class FitClassify(FitFlags):
    """Fit a classifier: linear SVM on the pooled features of whole images of any size.

    Attributes:
        options: options of the classifier.
    """

    options: Annotated[ClassifierOptions, tyro.conf.arg(name=""), _SHOWN] = field(
        default_factory=ClassifierOptions
    )


def run(words: list[str]) -> int:
    """Fit a classifier and write its run."""
    flags = read_flags(FitClassify, "sppnet fit classify", words)
    check_out(flags.out, overwrite=flags.overwrite)
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

"""What the verbs need of a detector or a classifier, and how they get one from a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sppnet.runs import run_kind

if TYPE_CHECKING:
    from sppnet.classify import Classifier
    from sppnet.detect import Detector

__all__ = ["Device", "Layout", "load_estimator"]

Device = Literal["auto", "cpu", "cuda", "mps"]
"""The values of ``--device``."""

Layout = Literal["folders", "voc", "coco", "yolo"]
"""The values of ``--format``."""


def load_estimator(run: Path, device: str) -> Detector | Classifier:
    """The detector or classifier that a run folder holds.

    Raises:
        UserError: the folder is no run that this version can read.
    """
    if run_kind(run) == "detector":
        from sppnet.detect import Detector

        return Detector.load(run, device=device)
    from sppnet.classify import Classifier

    return Classifier.load(run, device=device)

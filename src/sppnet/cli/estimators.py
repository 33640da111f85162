"""What the verbs need of an estimator, and how they get one from a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing import TypeAlias

    from sppnet.classify import Classifier, NetworkClassifier
    from sppnet.detect import Detector
    from sppnet.detect.paper import PaperDetector

    Estimator: TypeAlias = Detector | PaperDetector | Classifier | NetworkClassifier

__all__ = ["Device", "Layout", "load_estimator"]

Device = Literal["auto", "cpu", "cuda", "mps"]
"""The values of ``--device``."""

Layout = Literal["folders", "voc", "coco", "yolo"]
"""The values of ``--format``."""


def load_estimator(run: Path, device: str) -> Estimator:
    """The detector, classifier or trained network that a run folder holds.

    Raises:
        UserError: the folder is no run that this version can read.
    """
    from sppnet.runs import run_kind

    match run_kind(run):
        case "detector":
            from sppnet.detect import Detector

            return Detector.load(run, device=device)
        case "classifier":
            from sppnet.classify import Classifier

            return Classifier.load(run, device=device)
        case "network":
            from sppnet.classify import NetworkClassifier

            return NetworkClassifier.load(run, device=device)
        case "paper-detector":
            from sppnet.detect.paper import PaperDetector

            return PaperDetector.load(run, device=device)

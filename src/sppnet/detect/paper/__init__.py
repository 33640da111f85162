"""The paper's detection, whole: kept maps, fine-tuned layers, SVMs, box regression; R-CNN beside it."""

from sppnet.detect.paper.detector import PaperDetector
from sppnet.detect.paper.options import (
    BoxOptions,
    FinetuneOptions,
    PaperOptions,
    SvmStageOptions,
    WindowOptions,
)
from sppnet.detect.paper.outcome import combine
from sppnet.detect.paper.stages import StageCache

__all__ = [
    "BoxOptions",
    "FinetuneOptions",
    "PaperDetector",
    "PaperOptions",
    "StageCache",
    "SvmStageOptions",
    "WindowOptions",
    "combine",
]

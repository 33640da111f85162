"""The paper's detection, whole: kept maps, fine-tuned layers, SVMs, box regression; R-CNN beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sppnet.lazy import lazy_names

if TYPE_CHECKING:
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

_OPTIONS = "sppnet.detect.paper.options"
_HOMES = {
    "BoxOptions": _OPTIONS,
    "FinetuneOptions": _OPTIONS,
    "PaperDetector": "sppnet.detect.paper.detector",
    "PaperOptions": _OPTIONS,
    "StageCache": "sppnet.detect.paper.stages",
    "SvmStageOptions": _OPTIONS,
    "WindowOptions": _OPTIONS,
    "combine": "sppnet.detect.paper.outcome",
}

__getattr__ = lazy_names(__name__, _HOMES)

"""Detection: feature maps, pooled proposals, SVMs, box regression and suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sppnet.lazy import lazy_names

if TYPE_CHECKING:
    from sppnet.detect.combine import combine
    from sppnet.detect.detector import Detector
    from sppnet.detect.feature_options import MapOptions, PoolOptions, WindowOptions
    from sppnet.detect.head_options import FcOptions, FinetuneOptions, IouHeadOptions, PostOptions
    from sppnet.detect.options import DetectorOptions
    from sppnet.detect.result import DetectionResult
    from sppnet.detect.stage_options import BoxOptions, SvmOptions, TargetOptions

__all__ = [
    "BoxOptions",
    "DetectionResult",
    "Detector",
    "DetectorOptions",
    "FcOptions",
    "FinetuneOptions",
    "IouHeadOptions",
    "MapOptions",
    "PoolOptions",
    "PostOptions",
    "SvmOptions",
    "TargetOptions",
    "WindowOptions",
    "combine",
]

_HOMES = {
    "BoxOptions": "sppnet.detect.stage_options",
    "MapOptions": "sppnet.detect.feature_options",
    "PoolOptions": "sppnet.detect.feature_options",
    "SvmOptions": "sppnet.detect.stage_options",
    "TargetOptions": "sppnet.detect.stage_options",
    "WindowOptions": "sppnet.detect.feature_options",
    "FcOptions": "sppnet.detect.head_options",
    "FinetuneOptions": "sppnet.detect.head_options",
    "IouHeadOptions": "sppnet.detect.head_options",
    "PostOptions": "sppnet.detect.head_options",
    "combine": "sppnet.detect.combine",
    "Detector": "sppnet.detect.detector",
    "DetectorOptions": "sppnet.detect.options",
    "DetectionResult": "sppnet.detect.result",
}

__getattr__ = lazy_names(__name__, _HOMES)

"""Settings of benchmarks, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DetectionBenchmark:
    """Settings of ``sppnet benchmark detection``.

    Attributes:
        backbone: network of both pipelines.
        weights: local weights; random weights by default, which take the same time.
        layer: layer that is pooled.
        windows: number of windows of the image.
        crop: side of R-CNN's crops, in pixels.
        device: device to compute on.
        runs: number of runs of pooling; R-CNN runs once in its fastest batches and once in batches of 256.
        quick: use fewer windows, to test that it runs.
    """

    backbone: str = "torchvision:squeezenet1_0"
    weights: Path | None = None
    layer: str = "stride16"
    windows: int = 2000
    crop: int = 227
    device: str = "auto"
    runs: int = 5
    quick: bool = False

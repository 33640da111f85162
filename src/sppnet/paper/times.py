"""Seconds per image of convolutions and fc layers, as in Tables 9 and 10 (He et al. 2015, section 4.3)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.detect.paper import PaperDetector
from sppnet.detect.paper.cells import pool_windows, target_sides, window_cells
from sppnet.detect.rcnn import crop_windows
from sppnet.features import extract
from sppnet.ops import spatial_pyramid_pool
from sppnet.structures import Boxes


@dataclass(frozen=True)
class FeatureTimes:
    """Mean seconds per image.

    Attributes:
        conv: convolutional layers; for R-CNN with cropping and warping.
        fc: pooling and fully connected layers.
    """

    conv: float
    fc: float

    @property
    def total(self) -> float:
        """The sum of both."""
        return self.conv + self.fc


def feature_times(detector: PaperDetector, images: Sequence[tuple[Path, Tensor, Boxes]]) -> FeatureTimes:
    """Time the features of all proposals, without the search for proposals, SVMs and NMS.

    Args:
        detector: a fitted detector.
        images: path, pixels and proposals of each image. The first image is also used for a warm-up.

    Returns:
        The mean seconds.
    """
    work = _time_maps if detector.options.pipeline == "spp" else _time_crops
    conv = fc = 0.0
    work(detector, images[0][1], images[0][2][:8])
    for _, pixels, boxes in images:
        one, two = work(detector, pixels, boxes)
        conv, fc = conv + one, fc + two
    return FeatureTimes(conv / len(images), fc / len(images))


def _now(network: Backbone) -> float:
    if network.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _fully_connected(detector: PaperDetector, features: Tensor) -> None:
    head, layer = detector.heads_.head, detector.options.features
    if head is not None and layer != "pool":
        head.features(features.to(head.fc6.weight.device), layer)


def _time_maps(detector: PaperDetector, pixels: Tensor, boxes: Boxes) -> tuple[float, float]:
    network, options = detector.network_, detector.options
    targets = target_sides(network) if options.cells == "release" else None
    start = _now(network)
    maps = extract(network, pixels, options.scales)
    middle = _now(network)
    cells = window_cells(maps, boxes, options, targets=targets)
    _fully_connected(detector, pool_windows(maps, cells, options.levels))
    return middle - start, _now(network) - middle


def _time_crops(detector: PaperDetector, pixels: Tensor, boxes: Boxes) -> tuple[float, float]:
    network, options = detector.network_, detector.options
    pixels, fill = pixels.to(network.device), network.mean.flatten()
    conv = fc = 0.0
    with torch.no_grad():
        for start in range(0, len(boxes), options.crops.batch):
            piece = boxes[slice(start, start + options.crops.batch)]
            begin = _now(network)
            maps = network(crop_windows(pixels, piece, fill, options.crops))
            middle = _now(network)
            pooled = [spatial_pyramid_pool(one, options.levels).float() for one in maps]
            _fully_connected(detector, torch.cat(pooled, 1))
            conv, fc = conv + middle - begin, fc + _now(network) - middle
    return conv, fc

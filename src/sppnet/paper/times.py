"""Seconds per image of convolutions and fc layers, as in Tables 9 and 10 (He et al. 2015, section 4.3)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.detect import Detector
from sppnet.detect.cells import pool_windows, target_sides, window_cells
from sppnet.detect.crops import CropOptions, crop_windows
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


def feature_times(detector: Detector, images: Sequence[tuple[Path, Tensor, Boxes]]) -> FeatureTimes:
    """Time the features of all proposals of some images; proposals, SVMs and NMS are left out.

    Args:
        detector: a fitted detector.
        images: path, pixels and proposals of each image. The first image is also used for a warm-up.

    Returns:
        The mean seconds.
    """
    work = _time_maps if detector.options.pool.pipeline == "spp" else _time_crops
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


def _fully_connected(detector: Detector, features: Tensor) -> None:
    head, layer = detector.heads_.fc, detector.options.fc.features
    if head is not None and layer != "pool":
        head.features(features.to(head.fc6.weight.device), layer)


def _time_maps(detector: Detector, pixels: Tensor, boxes: Boxes) -> tuple[float, float]:
    network, options = detector.network_, detector.options.pool
    targets = target_sides(network) if options.cells == "release" else None
    start = _now(network)
    maps = extract(network, pixels, detector.options.map.sides)
    middle = _now(network)
    cells = window_cells(maps, boxes, options, targets=targets)
    _fully_connected(detector, pool_windows(maps, cells, options.levels))
    return middle - start, _now(network) - middle


def _time_crops(detector: Detector, pixels: Tensor, boxes: Boxes) -> tuple[float, float]:
    network, options = detector.network_, detector.options.pool
    crops = CropOptions(options.crop_side, options.crop_padding, options.crop_batch)
    pixels, fill = pixels.to(network.device), network.mean.flatten()
    conv = fc = 0.0
    with torch.no_grad():
        for start in range(0, len(boxes), crops.batch):
            piece = boxes[slice(start, start + crops.batch)]
            begin = _now(network)
            maps = network(crop_windows(pixels, piece, fill, crops))
            middle = _now(network)
            pooled = [spatial_pyramid_pool(one, options.levels).float() for one in maps]
            _fully_connected(detector, torch.cat(pooled, 1))
            conv, fc = conv + middle - begin, fc + _now(network) - middle
    return conv, fc

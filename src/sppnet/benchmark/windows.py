"""Recall of dense windows and of selective search."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from sppnet.data import default_split, read_detection, read_image
from sppnet.detect.windows import learn_shapes
from sppnet.ops.boxes import iou
from sppnet.proposals import dense_windows, selective_search
from sppnet.structures import GroundTruth

_COUNTS = (500, 1000, 2000, 4000, 8000)
_SHAPES = 16


def recall_of_windows(data: Path, most: int) -> list[dict[str, object]]:
    """Measure the fraction of objects that a window covers with an IoU of 0.5 and of 0.7.

    The shapes of dense windows are learned from the training images. Crowds are ignored.

    Args:
        data: a detection data set.
        most: maximum number of validation images.

    Returns:
        One mapping for each limit of dense windows and one for fast selective search, with ``"windows"``
        and ``"seconds"`` per image, ``"recall_50"`` and ``"recall_70"``.
    """
    shapes = learn_shapes(read_detection(data, None, None), _SHAPES)
    items = read_detection(data, default_split(data, "evaluate", None), None).items[:most]
    rows: list[dict[str, object]] = []
    for count in _COUNTS:
        best, windows, seconds = [], 0, 0.0
        for item in items:
            start = time.perf_counter()
            boxes = dense_windows(item.truth.boxes.size, shapes, most=count)
            seconds += time.perf_counter() - start
            windows += len(boxes)
            best.append(_best(item.truth, boxes.xyxy))
        rows.append(_row(data, f"dense, at most {count}", best, windows, seconds, len(items)))
    best, windows, seconds = [], 0, 0.0
    for item in items:
        image = read_image(item.path)
        start = time.perf_counter()
        boxes = selective_search(image).boxes
        seconds += time.perf_counter() - start
        windows += len(boxes)
        best.append(_best(item.truth, boxes.xyxy))
    rows.append(_row(data, "selective search, fast", best, windows, seconds, len(items)))
    return rows


def _best(truth: GroundTruth, boxes: Tensor) -> Tensor:
    """Compute the highest IoU of each object with a window."""
    objects = truth.boxes.xyxy[~truth.crowd]
    if not len(boxes) or not len(objects):
        return torch.zeros(len(objects))
    return iou(objects, boxes).max(1).values


def _row(
    data: Path, kind: str, best: list[Tensor], windows: int, seconds: float, images: int
) -> dict[str, object]:
    found = torch.cat(best)
    return {
        "data": data.name,
        "kind": kind,
        "windows": windows / images,
        "seconds": seconds / images,
        "recall_50": float((found >= 0.5).float().mean()),
        "recall_70": float((found >= 0.7).float().mean()),
        "objects": len(found),
    }

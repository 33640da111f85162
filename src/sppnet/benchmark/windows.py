"""How many objects the windows of an image find: dense ones beside selective search."""

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
    """The share of objects that some window covers by an IoU of 0.5 and of 0.7.

    Dense windows take their shapes from the images for training; recall is counted on at most ``most``
    images for validation, crowds left out.

    Returns:
        A row for each limit of dense windows and one for selective search in its fast mode, with
        ``"windows"`` and ``"seconds"`` an image.
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
    """The largest IoU of each object with a window."""
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

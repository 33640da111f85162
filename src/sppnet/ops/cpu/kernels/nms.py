"""Greedy non-maximum suppression on the CPU that stops when enough boxes are selected."""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

import numba
import numpy as np


def _keep(boxes, order, threshold, most, kept):
    """Write indices of boxes whose IoU with no selected box is above ``threshold`` into ``kept``."""
    count = 0
    areas = np.empty(most, np.float32)
    for i in order:
        x0, y0, x1, y1 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        area = (x1 - x0) * (y1 - y0)
        alone = True
        for k in range(count):
            j = kept[k]
            width = min(x1, boxes[j, 2]) - max(x0, boxes[j, 0])
            height = min(y1, boxes[j, 3]) - max(y0, boxes[j, 1])
            if width > 0 and height > 0:
                shared = width * height
                if shared / (area + areas[k] - shared) > threshold:
                    alone = False
                    break
        if alone:
            kept[count], areas[count] = i, area
            count += 1
            if count == most:
                break
    return count


try:
    _compiled = numba.njit(nogil=True, cache=True)(_keep)
except RuntimeError:  # no folder for machine code is writable
    _compiled = numba.njit(nogil=True)(_keep)


def keep(boxes: np.ndarray, scores: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """Return int64 indices of at most ``most`` selected boxes ``[N, 4]`` (float32), highest score first."""
    most = min(most, len(boxes))
    kept = np.empty(most, np.int64)
    if not most:
        return kept
    order = np.argsort(-scores, kind="stable")
    return kept[: _compiled(boxes, order, np.float32(threshold), most, kept)]

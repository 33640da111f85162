"""Which windows may become detections: the best of each class, near-duplicates thinned out."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.ops.boxes import nms
from sppnet.structures import Boxes

# Low scores stay: a window is scored again once it has been moved.
LEAST_SCORE = -1.3
NMS = 0.75
BEST = 8000
# Where objects crowd together, each has some twenty windows that are not near-duplicates.
KEPT = 400


def candidates(windows: Boxes, scores: Tensor, most: int = KEPT) -> tuple[Tensor, Tensor]:
    """The windows to go on with.

    Args:
        windows: N windows of an image.
        scores: ``[N, K]``, their margins by the SVMs.
        most: of a class.

    Returns:
        int64 ``[M]`` twice: windows, and the class that each is a candidate of.
    """
    index: list[Tensor] = []
    labels: list[Tensor] = []
    for number in range(scores.shape[1]):
        mine = scores[:, number]
        # topk promises no order of equal scores, which windows on the same cells have; a stable sort does.
        best = torch.sort(mine, descending=True, stable=True).indices[:BEST]
        best = best[mine[best] > LEAST_SCORE]
        kept = best[nms(windows.xyxy[best], mine[best], NMS, most)]
        index.append(kept)
        labels.append(torch.full((len(kept),), number, dtype=torch.int64))
    return torch.cat(index), torch.cat(labels)

"""Postprocessing, from proposals to detections: the same steps in prediction, evaluation and calibration.

1. `candidates`: proposals of each class that score above ``score_above``, without near-duplicates.
2. refine: the regressors move boxes ``regressions`` times.
3. score again (``rescored``): the mean of the old and new decision scores, plus the logit of the IoU head.
4. calibrate: a sigmoid per class turns decision scores into probabilities.
5. `merge`: suppression and voting, class by class.
6. `at_threshold`: what `predict` returns at its threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.detect.boxes import ProjectedRegressors
from sppnet.detect.head_options import PostOptions
from sppnet.detect.heads import Heads
from sppnet.detect.pooled_boxes import PooledRegressors
from sppnet.detect.sources import CropSource, MapSource, RowSource
from sppnet.detect.suppression import candidates, merge, without_repeats
from sppnet.structures import Boxes, Detections


def refined(
    pooled: MapSource | CropSource,
    rows: RowSource,
    position: tuple[int, int],
    heads: Heads,
    options: PostOptions,
) -> tuple[Boxes, Tensor, Tensor]:
    """Return the candidates of all classes after steps 1 to 3.

    Args:
        pooled: pooled features of the images.
        rows: features of the SVMs.
        position: index of the image, and number of its leading windows that are no proposals: in a fit, the
            boxes of its objects.
        heads: the fitted heads.
        options: options of postprocessing.

    Returns:
        Boxes, decision scores ``[M]`` and labels ``[M]``, on the CPU.
    """
    i, first = position
    windows, scores = rows.windows[i][first:], rows.scores(i, heads.svm)[first:]
    index, labels = candidates(windows, scores, options)
    boxes, score = windows[index], scores[index, labels]
    regressors = heads.boxes
    if regressors is None or not options.regressions or not len(index):
        return boxes, score, labels
    projected = None
    if isinstance(regressors, ProjectedRegressors):
        assert isinstance(pooled, MapSource)
        projected = regressors.projection(pooled.maps(i))
    known: Tensor | None = index + first
    for _ in range(options.regressions):
        if isinstance(regressors, PooledRegressors):
            boxes, known = regressors(pooled, i, boxes, labels, known), None
        elif projected is not None:
            boxes = regressors(projected, boxes, labels)
    if options.rescored:
        again = rows.at(i, boxes).scores(0, heads.svm)
        score = (score + again[torch.arange(len(labels)), labels]) / 2
    if isinstance(regressors, ProjectedRegressors) and projected is not None:
        score = score + options.iou_weight * regressors.iou_logits(projected, boxes, labels)
    return boxes, score, labels


def detect(pooled: MapSource | CropSource, rows: RowSource, heads: Heads, options: PostOptions) -> Detections:
    """Return the detections of the first image after steps 1 to 5; scores are probabilities."""
    size = rows.windows[0].size
    if not len(rows.windows[0]):
        return Detections.empty(size, heads.names)
    boxes, score, labels = refined(pooled, rows, (0, 0), heads, options)
    slope, offset = heads.calibration[labels].unbind(1)
    return merge(boxes, slope * score + offset, labels, heads.names, options)


def at_threshold(found: Detections, threshold: float, options: PostOptions) -> Detections:
    """Apply a threshold and class-agnostic suppression: the last step of `predict`.

    A threshold of 0 keeps all detections: the ranked list for the metrics of VOC and COCO, in which
    detections of two classes for one object are both counted.
    """
    if threshold <= 0:
        return found
    return without_repeats(found[found.scores >= threshold], options)

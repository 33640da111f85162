"""Box regression on pooled features (He et al. 2015, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.detect.sources import RowSource
from sppnet.detect.stage_options import BoxOptions
from sppnet.detect.svm_images import mean_norm_scale
from sppnet.learn import LinearModel, fit_ridge
from sppnet.ops.boxes import decode_deltas, encode_deltas, iou
from sppnet.structures import Boxes, GroundTruth

_ADDED_VARIANCE = 0.001
_LEAST_ROWS = 8


@dataclass(frozen=True)
class PooledRegressors:
    """One linear regressor per class.

    Attributes:
        model: weight ``[4 * K, D]``, bias ``[4 * K]``; rows 4k..4k+3 are the deltas of class k. Classes with
            too few examples have zeros, for which boxes are unchanged.
    """

    model: LinearModel

    def __call__(
        self, source: RowSource, i: int, boxes: Boxes, labels: Tensor, known: Tensor | None = None
    ) -> Boxes:
        """Move each box by the regressor of its class on its pooled features, and clip it to the image.

        Args:
            source: source of the pooled features.
            i: index of the image.
            boxes: ``[N, 4]`` on the image.
            labels: ``[N]``, classes of the boxes.
            known: ``[N]``, indices of the boxes among the proposals of the source, whose features may be
                cached; None for other boxes.

        Returns:
            The moved boxes.
        """
        place = boxes.xyxy.clone()
        for label in labels.unique().tolist():
            mine = (labels == label).nonzero()[:, 0]
            if known is None:
                rows = source.at(i, boxes[mine]).rows(0, torch.arange(len(mine)))
            else:
                rows = source.rows(i, known[mine])
            part = slice(4 * label, 4 * label + 4)
            deltas = rows @ self.model.weight[part].T + self.model.bias[part]
            place[mine] = decode_deltas(boxes.xyxy[mine], deltas)
        return Boxes(place, boxes.size).clip()


def whitening(targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the whitening of targets ``[N, 4]`` (SPP_net release, spp_train_bbox_regressor.m).

    Returns:
        Mean ``[4]``, inverse square root of the covariance ``[4, 4]``, and the inverse of that root.
    """
    mean = targets.mean(0)
    centred = targets - mean
    covariance = centred.T @ centred / len(targets)
    covariance.diagonal().add_(_ADDED_VARIANCE)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.rsqrt()) @ vectors.T
    return mean, root, (vectors * values.sqrt()) @ vectors.T


def fit_pooled(
    source: RowSource, truths: Sequence[GroundTruth], options: BoxOptions, mean_norm: float, seed: int
) -> tuple[PooledRegressors, dict[str, int]]:
    """Fit a ridge regression of whitened deltas per class, on proposals with an IoU above ``above_iou``.

    A proposal has class and target of the object with the highest IoU. If the features of a class exceed
    ``boxes_mb``, a random subset is used, and the counts report the others.

    Args:
        source: pooled features of the proposals of each image.
        truths: the objects of the same images.
        options: the options.
        mean_norm: mean norm to which features are scaled.
        seed: seed of random subsets.

    Returns:
        The regressors, for unscaled features, and counts: ``"regression_rows"``, ``"regression_left_out"``.
    """
    classes = len(truths[0].names)
    most = max(100, options.boxes_mb * 2**20 // (4 * source.length))
    draw = torch.Generator().manual_seed(seed)
    scale = mean_norm_scale(source, mean_norm, seed)
    pairs = _pairs(source, truths, options)
    weight, bias = torch.zeros(classes, 4, source.length), torch.zeros(classes, 4)
    used = left_out = 0
    for number in range(classes):
        mine = pairs[pairs[:, 3] == number]
        taken = mine[torch.randperm(len(mine), generator=draw)[:most].sort().values]
        left_out += len(mine) - len(taken)
        if len(taken) < _LEAST_ROWS:
            continue
        used += len(taken)
        rows, goals = _rows_and_goals(source, truths, taken)
        mean, root, back = whitening(goals.double())
        rows *= scale
        fitted = fit_ridge(rows, ((goals.double() - mean) @ root).float(), options.ridge)
        weight[number] = back.float() @ fitted.weight * scale
        bias[number] = back.float() @ fitted.bias + mean.float()
    counts = {"regression_rows": used, "regression_left_out": left_out}
    return PooledRegressors(LinearModel(weight.flatten(0, 1), bias.flatten())), counts


def _pairs(source: RowSource, truths: Sequence[GroundTruth], options: BoxOptions) -> Tensor:
    """Return the training pairs, int64 ``[M, 4]``: image, proposal, object, class."""
    parts: list[Tensor] = [torch.zeros(0, 4, dtype=torch.int64)]
    for i, (windows, truth) in enumerate(zip(source.windows, truths, strict=True)):
        able = (~truth.crowd).nonzero()[:, 0]
        if not len(able) or not len(windows):
            continue
        best, owner = iou(windows.xyxy, truth.boxes.xyxy[able]).max(1)
        window = (best > options.above_iou).nonzero()[:, 0]
        thing = able[owner[window]]
        parts.append(torch.stack([torch.full_like(window, i), window, thing, truth.labels[thing]], 1))
    return torch.cat(parts)


def _rows_and_goals(source: RowSource, truths: Sequence[GroundTruth], taken: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.empty(len(taken), source.length)
    goals = torch.empty(len(taken), 4)
    for i in torch.unique(taken[:, 0]).tolist():
        place = (taken[:, 0] == i).nonzero()[:, 0]
        window = taken[place, 1]
        rows[place] = source.rows(i, window)
        goals[place] = encode_deltas(source.windows[i].xyxy[window], truths[i].boxes.xyxy[taken[place, 2]])
    return rows, goals

"""Training of the IoU head, on jittered boxes and on proposals with high decision scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from sppnet.detect.boxes import ProjectedRegressors
from sppnet.detect.head_options import IouHeadOptions, PostOptions
from sppnet.detect.sources import MapSource, RowSource
from sppnet.detect.suppression import candidates
from sppnet.detect.targets import draw_evenly
from sppnet.detect.windows import ImageWindows
from sppnet.features import pool_rows
from sppnet.learn import MLP, LinearModel, MLPOptions, fit_mlp
from sppnet.ops.boxes import encode_deltas, iou
from sppnet.structures import Boxes, GroundTruth


@dataclass(frozen=True)
class IouHeadTask:
    """Inputs of the training of an IoU head.

    Attributes:
        maps: feature maps of each image.
        rows: features of the SVMs.
        windows: proposals of each image.
        truths: ground truth of each image.
        svm: SVMs, whose scores select the candidates.
        options: options of the IoU head.
        post: options of the selection of candidates.
    """

    maps: MapSource
    rows: RowSource
    windows: ImageWindows
    truths: Sequence[GroundTruth]
    svm: LinearModel
    options: IouHeadOptions
    post: PostOptions


@dataclass(frozen=True)
class _Table:
    """Features ``[N, D]``, labels ``[N]``, IoUs ``[N]`` and deltas ``[N, 4]`` of boxes."""

    rows: Tensor
    labels: Tensor
    overlaps: Tensor
    deltas: Tensor


def fit_iou_head(
    task: IouHeadTask, regressors: ProjectedRegressors, draw: torch.Generator
) -> ProjectedRegressors:
    """Train an IoU head on jittered boxes and on candidates.

    Args:
        task: inputs of the training.
        regressors: regressors without an IoU head.
        draw: random generator.

    Returns:
        The regressors with an IoU head; unchanged if no box is near an object that is neither difficult nor a
        crowd.
    """
    options, names = task.options, task.truths[0].names
    table = _table(task, regressors, draw)
    near = table.overlaps >= options.placed_iou
    if not bool(near.any()):
        return regressors
    spread = table.deltas[near].std(0, correction=0).clamp(min=1e-3)
    goals = (table.deltas / spread).clamp(-options.largest_delta, options.largest_delta)
    # Classes have equal weights whatever the number of their boxes, but the weight of a box is at most 5.
    counts = torch.bincount(table.labels[near], minlength=len(names)).clamp(min=1)
    weight = (len(near) / counts / len(counts)).clamp(max=5)[table.labels] * near

    def loss(outputs: Tensor, index: Tensor) -> Tensor:
        mine = outputs.view(len(index), -1, 5)[torch.arange(len(index)), table.labels[index]]
        wrong = binary_cross_entropy_with_logits(mine[:, 4], table.overlaps[index])
        away = smooth_l1_loss(mine[:, :4], goals[index], reduction="none").mean(1)
        share = weight[index]
        return wrong + (away * share).sum() / share.sum().clamp(min=1)

    outputs = 5 * len(names)
    found = fit_mlp(table.rows, outputs, loss, MLPOptions(neurons=options.iou_head), draw)
    units = torch.cat([spread, spread.new_ones(1)]).repeat(len(names))
    last = LinearModel(found.second.weight * units[:, None], found.second.bias * units)
    return replace(regressors, iou_head=MLP(found.first, last))


def _table(task: IouHeadTask, regressors: ProjectedRegressors, draw: torch.Generator) -> _Table:
    options, truths = task.options, task.truths
    each = max(1, min(options.iou_per_object, options.iou_boxes // max(1, sum(map(len, truths)))))
    sure = _sure_objects(truths, options.iou_boxes, draw)
    step = max(1, len(truths) // options.iou_images)
    parts: list[tuple[Tensor, ...]] = []
    for i, truth in enumerate(truths):
        boxes, labels = _jittered_boxes(truth, sure[i], each, options, draw)
        some = task.windows.proposed(i) if i % step == 0 else boxes[:0]
        if len(some):
            scores = task.rows.scores(i, task.svm)[len(truth) :]
            index, of_class = candidates(
                some, scores, task.post, (options.iou_per_class, options.iou_per_image)
            )
            boxes = Boxes(torch.cat([boxes.xyxy, some.xyxy[index]]), boxes.size)
            labels = torch.cat([labels, of_class])
        if len(boxes):
            rows = pool_rows(regressors.projection(task.maps.maps(i)), boxes, regressors.bins, "mean").cpu()
            parts.append((rows, labels, *_placed(boxes, labels, truth)))
    if not parts:
        return _Table(torch.empty(0, 0), torch.empty(0), torch.empty(0), torch.empty(0, 4))
    return _Table(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _sure_objects(truths: Sequence[GroundTruth], most: int, draw: torch.Generator) -> list[Tensor]:
    """Return the objects of each image that are neither crowds nor difficult; very many are sampled."""
    sure = [(~truth.crowd & ~truth.difficult).nonzero()[:, 0] for truth in truths]
    counts = torch.tensor([len(index) for index in sure])
    if int(counts.sum()) <= most:
        return sure
    labels = torch.cat([truth.labels[index] for truth, index in zip(truths, sure, strict=True)])
    images = torch.arange(len(truths)).repeat_interleave(counts)
    kept = torch.zeros(len(labels), dtype=torch.bool)
    kept[draw_evenly(labels, images, torch.zeros(len(labels)), most, draw)] = True
    return [index[mine] for index, mine in zip(sure, kept.split(counts.tolist()), strict=True)]


def _jittered_boxes(
    truth: GroundTruth, sure: Tensor, each: int, options: IouHeadOptions, draw: torch.Generator
) -> tuple[Boxes, Tensor]:
    """Return jittered boxes of the objects ``sure``, from small to large jitter, and their labels."""
    owner = sure.repeat_interleave(each)
    object_ = truth.boxes.xyxy[owner]
    sides, centre = object_[:, 2:] - object_[:, :2], (object_[:, 2:] + object_[:, :2]) / 2
    reach = torch.rand(len(owner), 1, generator=draw)
    shift, stretch = ((torch.rand(len(owner), 2, generator=draw) * 2 - 1) * reach for _ in range(2))
    centre, half = (
        centre + shift * options.jitter_shift * sides,
        sides * (stretch * options.jitter_stretch).exp() / 2,
    )
    boxes = Boxes(torch.cat([centre - half, centre + half], 1), truth.boxes.size).clip()
    seen = ((boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]) >= 2).all(1)
    return boxes[seen], truth.labels[owner[seen]]


def _placed(boxes: Boxes, labels: Tensor, truth: GroundTruth) -> tuple[Tensor, Tensor]:
    """Return the largest IoU ``[N]`` with an object of each box's class, and the deltas ``[N, 4]`` to it."""
    overlaps, deltas = torch.zeros(len(boxes)), torch.zeros(len(boxes), 4)
    for number in labels.unique().tolist():
        objects = truth.boxes.xyxy[(truth.labels == number) & ~truth.crowd]
        if len(objects):
            mine = labels == number
            overlaps[mine], owner = iou(boxes.xyxy[mine], objects).max(1)
            deltas[mine] = encode_deltas(boxes.xyxy[mine], objects[owner])
    return overlaps, deltas

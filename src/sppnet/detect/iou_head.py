"""What a detector's iou_head learns from: boxes about the objects, and windows that the SVMs like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from sppnet.detect.candidates import candidates
from sppnet.detect.options import DetectorOptions
from sppnet.detect.postprocess import Heads
from sppnet.detect.regression import BINS
from sppnet.detect.samples import draw_evenly
from sppnet.features import pool_rows, score_rows
from sppnet.features.store import MapStore
from sppnet.learn import MLP, LinearModel, MLPOptions, fit_mlp
from sppnet.ops.boxes import encode_deltas, iou
from sppnet.structures import Boxes, GroundTruth

_ROWS = 20_000
_PER_OBJECT = 48
_IMAGES = 100
_PER_CLASS = 20
# Boxes are jittered about an object with up to this, in units of its sides and as the logarithm of a ratio.
_SHIFT, _STRETCH = 0.6, 1.0
_PLACED = 0.4  # the IoU from which a box is near enough to be told where to go
_LARGEST_DELTA = 5.0  # in units of the deltas' spread


@dataclass(frozen=True)
class _Table:
    """Rows, and what they are of: label ``[N]``, overlap ``[N]`` and deltas ``[N, 4]``."""

    rows: Tensor
    labels: Tensor
    overlaps: Tensor
    deltas: Tensor


def fit_iou_head(
    store: MapStore,
    windows: Sequence[Boxes],
    truths: Sequence[GroundTruth],
    heads: Heads,
    options: DetectorOptions,
    draw: torch.Generator,
) -> Heads:
    """Heads with a iou_head, learned from boxes jittered about the objects and from candidates.

    Args:
        store: the images' maps.
        windows: of each image.
        truths: of each image.
        heads: without a iou_head; their SVMs tell the candidates.
        options: levels and iou_head count here.
        draw: of everything random.

    Returns:
        The same without a iou_head where no box lies near an object that is neither difficult nor a crowd.
    """
    table = _table(store, windows, truths, heads, options.levels, draw)
    near = table.overlaps >= _PLACED
    if not bool(near.any()):
        return heads
    spread = table.deltas[near].std(0, correction=0).clamp(min=1e-3)
    goals = (table.deltas / spread).clamp(-_LARGEST_DELTA, _LARGEST_DELTA)
    # A class weighs as much as another, however many boxes it has; but no box more than 5.
    counts = torch.bincount(table.labels[near], minlength=len(heads.names)).clamp(min=1)
    weight = (len(near) / counts / len(counts)).clamp(max=5)[table.labels] * near

    def loss(outputs: Tensor, index: Tensor) -> Tensor:
        mine = outputs.view(len(index), -1, 5)[torch.arange(len(index)), table.labels[index]]
        wrong = binary_cross_entropy_with_logits(mine[:, 4], table.overlaps[index])
        away = smooth_l1_loss(mine[:, :4], goals[index], reduction="none").mean(1)
        share = weight[index]
        return wrong + (away * share).sum() / share.sum().clamp(min=1)

    outputs = 5 * len(heads.names)
    found = fit_mlp(table.rows, outputs, loss, MLPOptions(neurons=options.iou_head), draw)
    units = torch.cat([spread, spread.new_ones(1)]).repeat(len(heads.names))
    last = LinearModel(found.second.weight * units[:, None], found.second.bias * units)
    iou_head = MLP(found.first, last)
    return replace(heads, regressors=replace(heads.regressors, iou_head=iou_head))


def _table(
    store: MapStore,
    windows: Sequence[Boxes],
    truths: Sequence[GroundTruth],
    heads: Heads,
    levels: tuple[int, ...],
    draw: torch.Generator,
) -> _Table:
    each = max(1, min(_PER_OBJECT, _ROWS // max(1, sum(map(len, truths)))))
    sure = _sure_objects(truths, draw)
    step = max(1, len(truths) // _IMAGES)
    parts: list[tuple[Tensor, ...]] = []
    for i, (some, truth) in enumerate(zip(windows, truths, strict=True)):
        maps = store[i]
        boxes, labels = _jittered_boxes(truth, sure[i], each, draw)
        if i % step == 0 and len(some):
            scores = score_rows(maps, some, heads.svm.weight, heads.svm.bias, levels)
            index, of_class = candidates(some, scores, _PER_CLASS)
            boxes = Boxes(torch.cat([boxes.xyxy, some.xyxy[index]]), boxes.size)
            labels = torch.cat([labels, of_class])
        if len(boxes):
            rows = pool_rows(heads.regressors.projection(maps), boxes, BINS, "mean")
            parts.append((rows, labels, *_placed(boxes, labels, truth)))
    if not parts:
        return _Table(torch.empty(0, 0), torch.empty(0), torch.empty(0), torch.empty(0, 4))
    return _Table(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _sure_objects(truths: Sequence[GroundTruth], draw: torch.Generator) -> list[Tensor]:
    """Objects of each image that are neither crowds nor difficult; of very many, an even draw."""
    sure = [(~truth.crowd & ~truth.difficult).nonzero()[:, 0] for truth in truths]
    counts = torch.tensor([len(index) for index in sure])
    if int(counts.sum()) <= _ROWS:
        return sure
    labels = torch.cat([truth.labels[index] for truth, index in zip(truths, sure, strict=True)])
    images = torch.arange(len(truths)).repeat_interleave(counts)
    kept = torch.zeros(len(labels), dtype=torch.bool)
    kept[draw_evenly(labels, images, torch.zeros(len(labels)), _ROWS, draw)] = True
    return [index[mine] for index, mine in zip(sure, kept.split(counts.tolist()), strict=True)]


def _jittered_boxes(
    truth: GroundTruth, sure: Tensor, each: int, draw: torch.Generator
) -> tuple[Boxes, Tensor]:
    """Boxes about the objects ``sure``, near ones and far ones alike, and the objects' classes."""
    owner = sure.repeat_interleave(each)
    object_ = truth.boxes.xyxy[owner]
    sides, centre = object_[:, 2:] - object_[:, :2], (object_[:, 2:] + object_[:, :2]) / 2
    reach = torch.rand(len(owner), 1, generator=draw)
    shift, stretch = ((torch.rand(len(owner), 2, generator=draw) * 2 - 1) * reach for _ in range(2))
    centre, half = centre + shift * _SHIFT * sides, sides * (stretch * _STRETCH).exp() / 2
    boxes = Boxes(torch.cat([centre - half, centre + half], 1), truth.boxes.size).clip()
    seen = ((boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]) >= 2).all(1)
    return boxes[seen], truth.labels[owner[seen]]


def _placed(boxes: Boxes, labels: Tensor, truth: GroundTruth) -> tuple[Tensor, Tensor]:
    """The largest IoU ``[N]`` with an object of each box's class, and the deltas ``[N, 4]`` onto it."""
    overlaps, deltas = torch.zeros(len(boxes)), torch.zeros(len(boxes), 4)
    for number in labels.unique().tolist():
        objects = truth.boxes.xyxy[(truth.labels == number) & ~truth.crowd]
        if len(objects):
            mine = labels == number
            overlaps[mine], owner = iou(boxes.xyxy[mine], objects).max(1)
            deltas[mine] = encode_deltas(boxes.xyxy[mine], objects[owner])
    return overlaps, deltas

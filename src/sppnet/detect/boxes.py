"""Box regression from mean-pooled, projected feature maps.

Shapes: `N` boxes, `K` classes, `C` channels, `P` projected channels, `D` length of a feature vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sppnet.detect.sources import MapSource
from sppnet.detect.stage_options import BoxOptions
from sppnet.detect.targets import choose_on_objects, draw_evenly
from sppnet.detect.windows import ImageWindows
from sppnet.features import pool_rows
from sppnet.features.store import sample_cells
from sppnet.learn import MLP, LinearModel, fit_ridge
from sppnet.ops.boxes import decode_deltas, encode_deltas
from sppnet.structures import Boxes, FeatureMaps, GroundTruth

_LEAST_ROWS = 8


@dataclass(frozen=True)
class Projection:
    """Principal components of the cells of each layer.

    Attributes:
        layers: names of the layers.
        means: ``[C]`` per layer.
        bases: ``[C, P]`` per layer, orthonormal columns; P is ``box_channels``, or C in narrower layers.
    """

    layers: tuple[str, ...]
    means: tuple[Tensor, ...]
    bases: tuple[Tensor, ...]

    def __call__(self, maps: FeatureMaps) -> FeatureMaps:
        """Project maps to P channels, float32."""
        projected = []
        for fmap in maps.maps:
            at = self.layers.index(fmap.layer)
            device = fmap.values.device
            rows = fmap.values.flatten(1).T.float() - self.means[at].to(device)
            rows = rows @ self.bases[at].to(device)
            values = rows.reshape(*fmap.values.shape[1:], -1).permute(2, 0, 1)
            projected.append(replace(fmap, values=values))
        return FeatureMaps(tuple(projected))


def fit_projection(source: MapSource, options: BoxOptions) -> Projection:
    """Compute the principal components of a sample of the cells of all images."""
    images = len(source.images)
    means: list[Tensor] = []
    bases: list[Tensor] = []
    layers = tuple(layer.name for layer in source.network.layers)
    for layer in layers:
        cells = sample_cells(map(source.maps, range(images)), layer, options.box_cells, images)
        mean = cells.mean(0)
        centred = cells - mean
        directions = torch.linalg.eigh((centred.T @ centred).double()).eigenvectors.flip(1)
        means.append(mean)
        bases.append(directions[:, : options.box_channels].float().contiguous())
    return Projection(layers, tuple(means), tuple(bases))


@dataclass(frozen=True)
class ProjectedRegressors:
    """Box regressors (section 4.1) and an IoU head, which the paper does not have.

    Both use mean-pooled, projected maps. A box moves by the mean of the deltas of a linear regressor per
    class and of the IoU head, an MLP that also predicts the IoU of the box with an object.

    Attributes:
        projection: projection of the maps.
        bins: bins along each side of a box, per level.
        model: weight ``[4 * K, D]``, bias ``[4 * K]``; rows 4k to 4k + 3 are the deltas of class k. They are
            zero for classes with too few samples, whose boxes do not move.
        iou_head: from D features to ``5 * K`` outputs: 5k to 5k + 3 are the four deltas of class k, 5k + 4 is
            the logit of the IoU with an object of the class. None without an IoU head.
    """

    projection: Projection
    bins: tuple[int, ...]
    model: LinearModel
    iou_head: MLP | None = None

    def __call__(self, projected: FeatureMaps, boxes: Boxes, labels: Tensor) -> Boxes:
        """Refine each box once with the regressor of its class, and clip it to the image."""
        if not len(boxes):
            return boxes
        rows = pool_rows(projected, boxes, self.bins, "mean").cpu()
        every = self.model.scores(rows).cpu().view(len(boxes), -1, 4)
        deltas = every[torch.arange(len(boxes)), labels]
        if self.iou_head is not None:
            deltas = (deltas + _of_class(self.iou_head.outputs(rows), labels)[:, :4]) / 2
        moved = decode_deltas(boxes.xyxy, deltas)
        # A box that would leave the image does not move.
        inside = Boxes(moved, boxes.size).clip()
        gone = ((inside.xyxy[:, 2:] - inside.xyxy[:, :2]) < 1).any(1)
        return Boxes(torch.where(gone[:, None], boxes.xyxy, inside.xyxy), boxes.size)

    def iou_logits(self, projected: FeatureMaps, boxes: Boxes, labels: Tensor) -> Tensor:
        """Return the logits ``[N]`` of the IoU of boxes with objects of their class; 0 without a head."""
        if self.iou_head is None or not len(boxes):
            return torch.zeros(len(boxes))
        rows = pool_rows(projected, boxes, self.bins, "mean").cpu()
        return _of_class(self.iou_head.outputs(rows), labels)[:, 4]


def _of_class(outputs: Tensor, labels: Tensor) -> Tensor:
    """Select the outputs ``[N, 5]`` of each box's class from ``[N, 5 * K]``, on the CPU."""
    return outputs.cpu().view(len(outputs), -1, 5)[torch.arange(len(labels)), labels]


def fit_projected(
    source: MapSource,
    windows: ImageWindows,
    truths: Sequence[GroundTruth],
    options: BoxOptions,
    mean_norm: float,
    draw: torch.Generator,
) -> ProjectedRegressors:
    """Fit a ridge regression of `encode_deltas` per class on mean-pooled, projected maps.

    Args:
        source: source of the maps.
        windows: proposals of each image.
        truths: ground truth of each image.
        options: options of box regression.
        mean_norm: mean norm to which features are scaled.
        draw: random generator of the proposals that are used.

    Returns:
        The regressors, without an IoU head.
    """
    samples = _samples(windows, truths, options, draw)
    projection = fit_projection(source, options)
    classes = len(truths[0].names)
    length = sum(n * n for n in options.box_bins) * sum(b.shape[1] for b in projection.bases)
    # One allocation for all features: many small ones between temporary maps would fragment the memory.
    table, filled = torch.empty(sum(len(boxes) for boxes, _ in samples), length), 0
    goals: list[Tensor] = []
    labels: list[Tensor] = []
    for i, ((boxes, objects), truth) in enumerate(zip(samples, truths, strict=True)):
        count = len(boxes)
        if count:
            rows = pool_rows(projection(source.maps(i)), boxes, options.box_bins, "mean")
            table[filled : filled + count] = rows
            goals.append(encode_deltas(boxes.xyxy, truth.boxes.xyxy[objects]))
            labels.append(truth.labels[objects])
            filled += count
    weight, bias = torch.zeros(classes, 4, length), torch.zeros(classes, 4)
    if filled:
        goal, label = torch.cat(goals), torch.cat(labels)
        scale = mean_norm / float(table.norm(dim=1).mean().clamp(min=1e-12))
        for number in range(classes):
            mine = label == number
            if int(mine.sum()) >= _LEAST_ROWS:
                fitted = fit_ridge(table[mine] * scale, goal[mine], options.ridge)
                weight[number], bias[number] = fitted.weight * scale, fitted.bias
    model = LinearModel(weight.flatten(0, 1), bias.flatten())
    return ProjectedRegressors(projection, options.box_bins, model)


def _samples(
    windows: ImageWindows, truths: Sequence[GroundTruth], options: BoxOptions, draw: torch.Generator
) -> list[tuple[Boxes, Tensor]]:
    """Choose proposals on objects, up to eight per object; very many are sampled over classes and images.

    Returns:
        Proposals of each image, and the indices of the objects that are their targets.
    """
    objects = max(1, sum(map(len, truths)))
    each = max(1, min(options.boxes_per_object, options.boxes_used // objects))
    found: list[tuple[Boxes, Tensor]] = []
    for i, truth in enumerate(truths):
        some = windows.proposed(i)
        index, owner = choose_on_objects(some, truth, options.above_iou, each, draw)
        found.append((some[index], owner))
    if objects <= options.boxes_used:
        return found
    counts = [len(owner) for _, owner in found]
    labels = torch.cat([t.labels[owner] for t, (_, owner) in zip(truths, found, strict=True)])
    images = torch.arange(len(truths)).repeat_interleave(torch.tensor(counts))
    kept = torch.zeros(len(labels), dtype=torch.bool)
    kept[draw_evenly(labels, images, torch.zeros(len(labels)), options.boxes_used, draw)] = True
    parts = kept.split(counts)
    return [(boxes[mine], owner[mine]) for (boxes, owner), mine in zip(found, parts, strict=True)]

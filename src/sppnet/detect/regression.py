"""Box regressors: from what lies in a window to how the window should move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sppnet.features import pool_rows
from sppnet.features.store import MapStore, sample_cells
from sppnet.learn import MLP, LinearModel, fit_ridge
from sppnet.ops.boxes import decode_deltas, encode_deltas
from sppnet.structures import Boxes, FeatureMaps, GroundTruth

# Where an edge lies inside a window shows in fine bins of a mean; how many channels tell it matters less.
BINS = (6,)
CHANNELS = 64
_CELLS = 60000
_MEAN_NORM = 20.0
_LEAST_ROWS = 8


@dataclass(frozen=True)
class Projection:
    """The directions in which the cells of each layer differ most.

    Attributes:
        layers: the layers' names.
        means: ``[C]`` a layer.
        bases: ``[C, P]`` a layer, orthonormal columns; P is 64 or, in narrower layers, C.
    """

    layers: tuple[str, ...]
    means: tuple[Tensor, ...]
    bases: tuple[Tensor, ...]

    def __call__(self, maps: FeatureMaps) -> FeatureMaps:
        """The maps with P channels, float32."""
        projected = []
        for fmap in maps.maps:
            at = self.layers.index(fmap.layer)
            device = fmap.values.device
            rows = fmap.values.flatten(1).T.float() - self.means[at].to(device)
            rows = rows @ self.bases[at].to(device)
            values = rows.reshape(*fmap.values.shape[1:], -1).permute(2, 0, 1)
            projected.append(replace(fmap, values=values))
        return FeatureMaps(tuple(projected))


def fit_projection(store: MapStore, which: Sequence[int]) -> Projection:
    """Principal components of the cells of the images ``which``."""
    layers = store[which[0]].layers
    means: list[Tensor] = []
    bases: list[Tensor] = []
    for layer in layers:
        cells = sample_cells(store, layer, _CELLS, which)
        mean = cells.mean(0)
        centred = cells - mean
        directions = torch.linalg.eigh((centred.T @ centred).double()).eigenvectors.flip(1)
        means.append(mean)
        bases.append(directions[:, :CHANNELS].float().contiguous())
    return Projection(layers, tuple(means), tuple(bases))


@dataclass(frozen=True)
class Regressors:
    """Where the boxes of candidates belong, and how well they sit (paper section 3.6, and beyond it).

    Both are read off mean-pooled, projected maps: moves by a linear regressor a class and by a network of
    one hidden layer, halfway between the two; how well a box sits by the network.

    Attributes:
        projection: of the maps.
        model: weight ``[4 * K, D]``, bias ``[4 * K]``; rows 4k..4k+3 are class k's four deltas. Classes
            with too few examples have zeros, which leave a box where it is.
        iou_head: D numbers to ``5 * K``: 5k..5k+3 are class k's four deltas, 5k+4 the logit of the IoU with
            an object of the class. None where it was not learned.
    """

    projection: Projection
    model: LinearModel
    iou_head: MLP | None = None

    def __call__(self, projected: FeatureMaps, boxes: Boxes, labels: Tensor) -> Boxes:
        """Each box moved once by what was learned of its class, and clipped to the image."""
        if not len(boxes):
            return boxes
        rows = pool_rows(projected, boxes, BINS, "mean")
        every = self.model.scores(rows).cpu().view(len(boxes), -1, 4)
        deltas = every[torch.arange(len(boxes)), labels]
        if self.iou_head is not None:
            deltas = (deltas + _of_class(self.iou_head.outputs(rows), labels)[:, :4]) / 2
        moved = decode_deltas(boxes.xyxy, deltas)
        # A box that left the image has nothing to show for it; it stays where it was.
        inside = Boxes(moved, boxes.size).clip()
        gone = ((inside.xyxy[:, 2:] - inside.xyxy[:, :2]) < 1).any(1)
        return Boxes(torch.where(gone[:, None], boxes.xyxy, inside.xyxy), boxes.size)

    def iou_logits(self, projected: FeatureMaps, boxes: Boxes, labels: Tensor) -> Tensor:
        """The logit ``[N]`` of each box's IoU with an object of its class; 0 without a iou_head."""
        if self.iou_head is None or not len(boxes):
            return torch.zeros(len(boxes))
        rows = pool_rows(projected, boxes, BINS, "mean")
        return _of_class(self.iou_head.outputs(rows), labels)[:, 4]


def _of_class(outputs: Tensor, labels: Tensor) -> Tensor:
    """``[N, 5 * K]`` to ``[N, 5]``, on the CPU."""
    return outputs.cpu().view(len(outputs), -1, 5)[torch.arange(len(labels)), labels]


@dataclass(frozen=True)
class RegressionSample:
    """Windows of one image and the objects that they should move onto."""

    boxes: Boxes
    objects: Tensor


def fit_regressors(
    store: MapStore,
    samples: Sequence[RegressionSample],
    truths: Sequence[GroundTruth],
    penalty: float,
) -> Regressors:
    """Ridge regression of `encode_deltas`, one a class.

    Args:
        store: the images' maps.
        samples: one an image.
        truths: one an image.
        penalty: of the squared weights, for rows scaled to a mean norm of 20.
    """
    projection = fit_projection(store, range(len(store)))
    classes = len(truths[0].names)
    length = sum(n * n for n in BINS) * sum(b.shape[1] for b in projection.bases)
    # One block for all rows, laid out before: many small ones between maps that come and go leave holes.
    table, filled = torch.empty(sum(len(sample.boxes) for sample in samples), length), 0
    goals: list[Tensor] = []
    labels: list[Tensor] = []
    for i, (sample, truth) in enumerate(zip(samples, truths, strict=True)):
        count = len(sample.boxes)
        if count:
            table[filled : filled + count] = pool_rows(projection(store[i]), sample.boxes, BINS, "mean")
            goals.append(encode_deltas(sample.boxes.xyxy, truth.boxes.xyxy[sample.objects]))
            labels.append(truth.labels[sample.objects])
            filled += count
    weight, bias = torch.zeros(classes, 4, length), torch.zeros(classes, 4)
    if filled:
        goal, label = torch.cat(goals), torch.cat(labels)
        scale = _MEAN_NORM / float(table.norm(dim=1).mean().clamp(min=1e-12))
        for number in range(classes):
            mine = label == number
            if int(mine.sum()) >= _LEAST_ROWS:
                fitted = fit_ridge(table[mine] * scale, goal[mine], penalty)
                weight[number], bias[number] = fitted.weight * scale, fitted.bias
    return Regressors(projection, LinearModel(weight.flatten(0, 1), bias.flatten()))

"""Cells of proposals by the rules of the paper and of its release, and their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.detect.feature_options import PoolOptions
from sppnet.errors import UserError
from sppnet.features import choose_scale
from sppnet.features.cells import cells
from sppnet.learn import LinearModel
from sppnet.ops import region_pyramid_pool, region_pyramid_scores
from sppnet.ops.cells import floor_quotient
from sppnet.structures import Boxes, FeatureMap, FeatureMaps

CELLS_VERSION = 3
"""Part of the key of cached stages; increased when a rule in this module changes."""
TRAINING_SIDE = 224
"""Side of the training images, from which the release derives the target side of a proposal."""


def target_sides(network: Backbone) -> dict[str, float]:
    """Compute the target side of a proposal in pixels of the network's input, by layer.

    It is the side of the map of a training image times the stride: 13 * 16 = 208 for ZF-5 and 18 * 12 = 216
    for Overfeat (SPP_net release, spm_expected_scale.m).

    Args:
        network: the backbone.

    Returns:
        Target sides by name of the layer.
    """
    side = max(TRAINING_SIDE, network.minimum.height, network.minimum.width)
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, side, side, device=network.device))
    return {
        info.name: min(found.shape[2:]) * info.grid.stride
        for info, found in zip(network.layers, maps, strict=True)
    }


def release_scale(boxes: Boxes, maps: Sequence[FeatureMap], target: float) -> Tensor:
    """Choose for each proposal the scale at which its side is nearest to a target.

    The ideal short side is round(target * m / sqrt(area)), where m is the short side of the image; of equally
    near scales the first is chosen (SPP_net release, spm_expected_scale.m).

    Args:
        boxes: ``[N, 4]`` on the image.
        maps: one map per scale, all of one layer.
        target: side in pixels, from `target_sides`.

    Returns:
        int64 ``[N]``, indices into ``maps``.
    """
    ideal = (target * boxes.size.short_side / boxes.areas.double().clamp(min=1).sqrt() + 0.5).floor()
    sides = ideal.new_tensor([m.resized.short_side for m in maps])
    return torch.sort((ideal[:, None] - sides).abs(), dim=1, stable=True).indices[:, 0]


def paper_cells(boxes: Boxes, fmap: FeatureMap) -> Tensor:
    """Compute the cells of each proposal by the rule of the paper (He et al. 2015, appendix A).

    If cell i is centred at pixel S * i, the cells of the box from pixel l to pixel r are those from
    floor(l / S) + 1 to ceil(r / S) - 1: a cell that is centred on a boundary pixel is excluded. Other
    networks have their cells at ``fmap.grid``. In continuous coordinates, where pixel p covers p to p + 1,
    the centre of a cell is more than half a pixel inside both edges. All products are exact in float64.

    If no cell qualifies, the cell nearest to the middle of the box is selected.

    Args:
        boxes: ``[N, 4]`` on the image.
        fmap: a map of that image.

    Returns:
        int64 ``[N, 4]``, ``(x0, y0, x1, y1)`` in cells, half open, never empty.

    Raises:
        UserError: the boxes belong to an image of another size.
    """
    if boxes.size != fmap.image:
        raise UserError("boxes.size", f"the size of the map's image, {fmap.image}", boxes.size)
    height, width = fmap.values.shape[1:]
    x0, y0, x1, y1 = boxes.xyxy.double().unbind(1)
    columns = (fmap.image.width, fmap.resized.width, width)
    rows = (fmap.image.height, fmap.resized.height, height)
    sides: list[tuple[Tensor, Tensor]] = []
    for low, high, (own, resized, count) in ((x0, x1, columns), (y0, y1, rows)):
        # Multiplied by the side of the image, so that no scale factor is rounded.
        step, first, half = fmap.grid.stride * own, fmap.grid.first * own, 0.5 * own
        start = (floor_quotient(low * resized + half - first, step) + 1).clamp(0, count)
        stop = (-floor_quotient(first + half - high * resized, step)).clamp(0, count)
        nearest = floor_quotient((low + high) * resized - 2 * first + step, 2 * step).clamp(0, count - 1)
        empty = stop <= start
        sides.append(
            (torch.where(empty, nearest, start).long(), torch.where(empty, nearest + 1, stop).long())
        )
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], 1)


def release_cells(boxes: Boxes, fmap: FeatureMap, offset: float) -> Tensor:
    """Compute the cells of each proposal by the rule of the SPP_net release, spm_pool_caffe_mex.cpp.

    Pixels and cells are counted from 1. A coordinate x of the image becomes (x - 1) f + 1 with one factor
    for both axes, f = (s - 1) / (m - 1), where m is the short side of the image and s that of the resized
    image. With o the centre of the first cell and S the stride, cells run from
    floor((x0 - o + offset) / S + 0.5) + 1 to ceil((x1 - o - offset) / S - 0.5) + 1; if that is empty, the
    cell in the middle is selected; all are clipped to the map.

    Args:
        boxes: ``[N, 4]`` on the image.
        fmap: a map of that image.
        offset: pixels of the network's input by which a box shrinks on each side.

    Returns:
        int64 ``[N, 4]``, ``(x0, y0, x1, y1)`` in cells, half open, never empty.
    """
    height, width = fmap.values.shape[1:]
    x0, y0, x1, y1 = boxes.xyxy.double().unbind(1)
    first = fmap.grid.first + 0.5  # counted from 1
    shrunk, own = fmap.resized.short_side - 1, max(fmap.image.short_side - 1, 1)
    sides: list[tuple[Tensor, Tensor]] = []
    for low, high, count in ((x0, x1, width), (y0, y1, height)):
        # The first pixel of a box, counted from 1, is low + 1 and the last one is high. The factor is a
        # quotient of integers: multiplying first keeps coordinates on whole pixels exact.
        start = torch.floor((low * shrunk / own + 1 - first + offset) / fmap.grid.stride + 0.5) + 1
        last = torch.ceil(((high - 1) * shrunk / own + 1 - first - offset) / fmap.grid.stride - 0.5) + 1
        middle = torch.floor((start + last) / 2)
        empty = start > last
        start, last = torch.where(empty, middle, start), torch.where(empty, middle, last)
        sides.append(((start - 1).clamp(0, count - 1).long(), last.clamp(1, count).long()))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, torch.maximum(right, left + 1), torch.maximum(bottom, top + 1)], 1)


def window_cells(
    maps: FeatureMaps,
    boxes: Boxes,
    options: PoolOptions,
    scale: Tensor | None = None,
    targets: Mapping[str, float] | None = None,
) -> Tensor:
    """Compute scale and cells of each proposal; proposals with equal values have equal features.

    Args:
        maps: feature maps of one image.
        boxes: ``[N, 4]`` on the image.
        options: ``cells`` and ``release_offset`` are used.
        scale: int64 ``[N]``, indices of scales; None to choose scales by the rule.
        targets: result of `target_sides`, for the rule of the release.

    Returns:
        int64 ``[N, 5 * layers]``: per layer the index of the scale and four cells.
    """
    parts: list[Tensor] = []
    for layer in maps.layers:
        of_layer = maps.of_layer(layer)
        if scale is not None:
            chosen = scale
        elif options.cells == "release" and len(of_layer) > 1:
            assert targets is not None, "the rule of the release requires target sides"
            chosen = release_scale(boxes, of_layer, targets[layer])
        else:
            chosen = choose_scale(boxes, of_layer)
        line = torch.zeros(len(boxes), 5, dtype=torch.int64)
        line[:, 0] = chosen
        for i, fmap in enumerate(of_layer):
            index = (chosen == i).nonzero()[:, 0]
            if not len(index):
                continue
            if options.cells == "release":
                line[index, 1:] = release_cells(boxes[index], fmap, options.release_offset)
            elif options.cells == "paper":
                line[index, 1:] = paper_cells(boxes[index], fmap)
            else:
                line[index, 1:] = cells(boxes[index], fmap)
        parts.append(line)
    return torch.cat(parts, 1)


def pool_windows(maps: FeatureMaps, lines: Tensor, levels: Sequence[int]) -> Tensor:
    """Pool proposals by their cells; proposals with equal cells are pooled once.

    Args:
        maps: feature maps of the image.
        lines: result of `window_cells`.
        levels: bins along each side of each level of the pyramid.

    Returns:
        float32 features ``[N, D]`` on the device of the maps, in the order of `sppnet.features.pool_rows`.
    """
    different, inverse = torch.unique(lines, dim=0, return_inverse=True)
    parts: list[Tensor] = []
    for number, layer in enumerate(maps.layers):
        of_layer = maps.of_layer(layer)
        line = different[:, 5 * number : 5 * number + 5]
        length = of_layer[0].values.shape[0] * sum(n * n for n in levels)
        device = of_layer[0].values.device
        rows = torch.empty(len(line), length, device=device)
        for i, fmap in enumerate(of_layer):
            index = (line[:, 0] == i).nonzero()[:, 0]
            if len(index):
                regions = line[index, 1:].to(device)
                pooled = region_pyramid_pool(fmap.values[None], [regions], levels).float()
                if len(index) == len(line):
                    rows = pooled
                else:
                    rows[index] = pooled
        parts.append(rows)
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return joined if len(joined) == len(lines) and _is_range(inverse) else joined[inverse]


def _is_range(index: Tensor) -> bool:
    return bool((index == torch.arange(len(index))).all())


def score_windows(maps: FeatureMaps, lines: Tensor, model: LinearModel, levels: Sequence[int]) -> Tensor:
    """Compute ``model.scores(pool_windows(maps, lines, levels))`` without storing the features.

    Args:
        maps: feature maps of the image.
        lines: result of `window_cells`.
        model: K linear functions on pooled features.
        levels: bins along each side of each level of the pyramid.

    Returns:
        float32 decision scores ``[N, K]`` on the CPU.
    """
    different, inverse = torch.unique(lines, dim=0, return_inverse=True)
    scores = model.bias.float().repeat(len(different), 1)
    start = 0
    for number, layer in enumerate(maps.layers):
        of_layer = maps.of_layer(layer)
        stop = start + of_layer[0].values.shape[0] * sum(n * n for n in levels)
        weight = model.weight[:, start:stop].float()
        line = different[:, 5 * number : 5 * number + 5]
        for i, fmap in enumerate(of_layer):
            index = (line[:, 0] == i).nonzero()[:, 0]
            if len(index):
                device = fmap.values.device
                some = region_pyramid_scores(
                    fmap.values[None], [line[index, 1:].to(device)], weight.to(device), None, levels
                )
                scores[index] += some.cpu()
        start = stop
    return scores[inverse]

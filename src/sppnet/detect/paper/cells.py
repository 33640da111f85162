"""From windows to cells, by the paper's rule or the release's, and from there to rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sppnet.detect.paper.options import PaperOptions
from sppnet.features import cells, choose_scale
from sppnet.learn import LinearModel
from sppnet.ops import region_pyramid_pool, region_pyramid_scores
from sppnet.structures import Boxes, FeatureMap, FeatureMaps

# The release wants a window's side to have so many cells of a map (paper section 3.2).
_RELEASE_CELLS = 13


def release_scale(boxes: Boxes, maps: Sequence[FeatureMap]) -> Tensor:
    """The scale whose short side is nearest to the one at which a window is 13 cells large.

    Paper section 3.2, the release's rule: the side wanted is round(13 stride m / sqrt(area)), m the short
    side of the image; the first of equally near scales.

    Returns:
        int64 ``[N]``, positions in ``maps``.
    """
    target = _RELEASE_CELLS * maps[0].grid.stride
    wanted = (target * boxes.size.short_side / boxes.areas.double().clamp(min=1).sqrt() + 0.5).floor()
    sides = wanted.new_tensor([m.resized.short_side for m in maps])
    return torch.sort((wanted[:, None] - sides).abs(), dim=1, stable=True).indices[:, 0]


def release_cells(boxes: Boxes, fmap: FeatureMap, offset: float) -> Tensor:
    """The cells of a window by the release's rule (paper section 3.3).

    In pixels counted from 1, with o the first cell's centre and S the stride, from
    floor((x0 - o + offset) / S + 0.5) + 1 to ceil((x1 - o - offset) / S - 0.5) + 1, cells counted from 1;
    where that is empty, the cell in the middle; clipped to the map.

    Returns:
        int64 ``[N, 4]``, ``(x0, y0, x1, y1)`` in cells, half open, never empty.
    """
    height, width = fmap.values.shape[1:]
    x0, y0, x1, y1 = boxes.xyxy.double().unbind(1)
    first = fmap.grid.first + 0.5  # from 1
    columns = (fmap.image.width, fmap.resized.width, width)
    rows = (fmap.image.height, fmap.resized.height, height)
    sides: list[tuple[Tensor, Tensor]] = []
    for low, high, (own, resized, count) in ((x0, x1, columns), (y0, y1, rows)):
        factor = (resized - 1) / max(own - 1, 1)
        # A box's first pixel, counted from 1, is low + 1, its last one high.
        start = torch.floor((low * factor + 1 - first + offset) / fmap.grid.stride + 0.5) + 1
        last = torch.ceil(((high - 1) * factor + 1 - first - offset) / fmap.grid.stride - 0.5) + 1
        middle = torch.floor((start + last) / 2)
        empty = start > last
        start, last = torch.where(empty, middle, start), torch.where(empty, middle, last)
        sides.append(((start - 1).clamp(0, count - 1).long(), last.clamp(1, count).long()))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, torch.maximum(right, left + 1), torch.maximum(bottom, top + 1)], 1)


def window_cells(
    maps: FeatureMaps, boxes: Boxes, options: PaperOptions, scale: Tensor | None = None
) -> Tensor:
    """What each window covers: int64 ``[N, 5 * layers]``, a scale's position and four cells a layer.

    Windows with equal lines have equal rows.

    Args:
        maps: of one image.
        boxes: N windows on it.
        options: cells and release_offset count.
        scale: int64 ``[N]``, positions of scales to take in place of the rule's.
    """
    parts: list[Tensor] = []
    for layer in maps.layers:
        of_layer = maps.of_layer(layer)
        if scale is not None:
            chosen = scale
        elif options.cells == "release":
            chosen = release_scale(boxes, of_layer)
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
            else:
                line[index, 1:] = cells(boxes[index], fmap)
        parts.append(line)
    return torch.cat(parts, 1)


def pool_windows(maps: FeatureMaps, lines: Tensor, levels: Sequence[int]) -> Tensor:
    """The pyramids of windows that `window_cells` described; equal windows are pooled once.

    Returns:
        float32 ``[N, D]`` on the maps' device, laid out as `sppnet.features.pool_rows` lays its rows.
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
    """``model.scores(pool_windows(maps, lines, levels))``, without the rows ever lying in memory.

    Returns:
        float32 ``[N, K]`` on the CPU.
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

"""From boxes to rows: every box pooled from the scale that suits it, all layers joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sppnet.errors import UserError
from sppnet.features.cells import TARGET_AREA, cells, choose_scale
from sppnet.ops import region_pyramid_pool, region_pyramid_scores
from sppnet.ops.pyramid import LEVELS, Mode
from sppnet.structures import Boxes, FeatureMap, FeatureMaps

# Looking for equal windows costs about as much as pooling a few hundred of them.
_WORTH_MERGING = 256


def row_length(maps: FeatureMaps, levels: Sequence[int]) -> int:
    """Numbers in a row: the channels of all layers together, times the bins of all levels."""
    channels = sum(maps.of_layer(layer)[0].values.shape[0] for layer in maps.layers)
    return channels * sum(n * n for n in levels)


def _windows(
    boxes: Boxes, layer: tuple[FeatureMap, ...], target_area: float
) -> Iterator[tuple[FeatureMap, Tensor, Tensor]]:
    """For each scale that some box chooses: its map, the boxes' numbers and their cells."""
    if len(layer) == 1:
        chosen = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.xyxy.device)
    else:
        chosen = choose_scale(boxes, layer, target_area)
    for i, fmap in enumerate(layer):
        index = (chosen == i).nonzero()[:, 0]
        if len(index):
            yield fmap, index, cells(boxes[index], fmap)


def _merge(regions: Tensor, fmap: FeatureMap) -> tuple[Tensor, Tensor | None]:
    """The different regions among ``regions``, and which of them each one is; None when merging is idle."""
    if len(regions) < _WORTH_MERGING:
        return regions, None
    height, width = fmap.values.shape[1:]
    x0, y0, x1, y1 = regions.unbind(1)
    key = ((x0 * (height + 1) + y0) * (width + 1) + x1) * (height + 1) + y1
    _, inverse = torch.unique(key, return_inverse=True)
    count = int(inverse.max()) + 1
    if count > 0.8 * len(regions):
        return regions, None
    one_of_each = torch.zeros(count, dtype=torch.int64, device=regions.device)
    one_of_each[inverse] = torch.arange(len(regions), device=regions.device)
    return regions[one_of_each], inverse


def pool_rows(
    maps: FeatureMaps,
    boxes: Boxes,
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
    target_area: float = TARGET_AREA,
) -> Tensor:
    """One row a box: the pyramid of its cells, layer after layer.

    Boxes that cover the same cells of the same map are pooled once.

    Args:
        maps: of one image.
        boxes: N boxes on it.
        levels: bins along each side of each level of the pyramid; the paper's are 6, 3, 2, 1.
        mode: ``"max"`` or ``"mean"``.
        target_area: pixels of the network's input that a box should have at the scale chosen for it.

    Returns:
        float32 ``[N, D]`` on the maps' device, D as ``row_length`` tells; in a layer's part, values lie
        as ``region_pyramid_pool`` lays them.

    Raises:
        UserError: boxes of an image of another size, or levels that are none.
    """
    _check_size(maps, boxes)
    device = maps.maps[0].values.device
    placed = Boxes(boxes.xyxy.to(device), boxes.size)
    parts: list[Tensor] = []
    for layer in maps.layers:
        of_layer = maps.of_layer(layer)
        length = of_layer[0].values.shape[0] * sum(n * n for n in levels)
        part: Tensor | None = None
        for fmap, index, regions in _windows(placed, of_layer, target_area):
            different, inverse = _merge(regions, fmap)
            rows = region_pyramid_pool(fmap.values[None], [different], levels, mode).float()
            rows = rows if inverse is None else rows[inverse]
            if len(index) == len(boxes):
                part = rows
            else:
                part = rows.new_empty(len(boxes), length) if part is None else part
                part[index] = rows
        parts.append(torch.zeros(0, length, device=device) if part is None else part)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def score_rows(
    maps: FeatureMaps,
    boxes: Boxes,
    weight: Tensor,
    bias: Tensor,
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
    target_area: float = TARGET_AREA,
) -> Tensor:
    """``pool_rows(maps, boxes, ...) @ weight.T + bias``, without the rows ever lying in memory.

    Args:
        maps: of one image.
        boxes: N boxes on it.
        weight: ``[K, D]``, D as ``row_length`` tells.
        bias: ``[K]``.
        levels: bins along each side of each level of the pyramid; the paper's are 6, 3, 2, 1.
        mode: ``"max"`` or ``"mean"``.
        target_area: pixels of the network's input that a box should have at the scale chosen for it.

    Returns:
        float32 ``[N, K]`` on the maps' device.

    Raises:
        UserError: boxes of an image of another size, or a weight of another length.
    """
    _check_size(maps, boxes)
    length = row_length(maps, levels)
    if weight.ndim != 2 or weight.shape[1] != length:
        raise UserError(
            "weight", f"a tensor [K, {length}] for these maps and levels", f"shape {list(weight.shape)}"
        )
    device = maps.maps[0].values.device
    placed = Boxes(boxes.xyxy.to(device), boxes.size)
    scores = bias.to(device, torch.float32).repeat(len(boxes), 1)
    start = 0
    for layer in maps.layers:
        of_layer = maps.of_layer(layer)
        stop = start + of_layer[0].values.shape[0] * sum(n * n for n in levels)
        part = weight[:, start:stop].to(device, torch.float32)
        for fmap, index, regions in _windows(placed, of_layer, target_area):
            different, inverse = _merge(regions, fmap)
            some = region_pyramid_scores(fmap.values[None], [different], part, None, levels, mode)
            scores[index] += some if inverse is None else some[inverse]
        start = stop
    return scores


def iter_rows(
    maps: FeatureMaps,
    boxes: Boxes,
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
    target_area: float = TARGET_AREA,
    limit_bytes: int = 256 * 2**20,
) -> Iterator[tuple[slice, Tensor]]:
    """``pool_rows`` in pieces of bounded size.

    Args:
        maps: of one image.
        boxes: N boxes on it.
        levels: bins along each side of each level of the pyramid; the paper's are 6, 3, 2, 1.
        mode: ``"max"`` or ``"mean"``.
        target_area: pixels of the network's input that a box should have at the scale chosen for it.
        limit_bytes: of one piece; a piece has at least one row.

    Yields:
        The boxes' positions and their rows ``[n, D]``.
    """
    count = max(1, limit_bytes // (4 * row_length(maps, levels)))
    for start in range(0, len(boxes), count):
        piece = slice(start, min(start + count, len(boxes)))
        yield piece, pool_rows(maps, boxes[piece], levels, mode, target_area)


def image_rows(
    maps: FeatureMaps, levels: Sequence[int] = LEVELS, mode: Mode = "max", *, normalise: bool = False
) -> Tensor:
    """The full-image view: one feature vector per scale, the pyramid of the whole map (section 3.1.4).

    Args:
        maps: of one image.
        levels: bins along each side of each level.
        mode: ``"max"`` or ``"mean"``.
        normalise: divide the part of each layer and level by its l2 norm, so that none outweighs another.

    Returns:
        float32 ``[S, D]``, scales ascending.
    """
    columns: list[Tensor] = []
    for layer in maps.layers:
        rows: list[Tensor] = []
        for fmap in maps.of_layer(layer):
            height, width = fmap.values.shape[1:]
            whole = torch.tensor([[0, 0, width, height]], device=fmap.values.device)
            rows.append(region_pyramid_pool(fmap.values[None], [whole], levels, mode).float())
        part = torch.cat(rows)
        if normalise:
            lengths = [n * n * part.shape[1] // sum(m * m for m in levels) for n in levels]
            part = torch.cat([functional.normalize(level) for level in part.split(lengths, 1)], 1)
        columns.append(part)
    return torch.cat(columns, 1)


def _check_size(maps: FeatureMaps, boxes: Boxes) -> None:
    if boxes.size != maps.image:
        raise UserError("boxes.size", f"the size of the maps' image, {maps.image}", boxes.size)

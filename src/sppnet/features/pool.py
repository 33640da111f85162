"""Feature vectors of boxes and of whole images, concatenated over layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sppnet.errors import UserError
from sppnet.features.cells import TARGET_AREA, cells, choose_scale
from sppnet.ops import region_pyramid_pool, region_pyramid_scores
from sppnet.ops.pyramid import LEVELS, Mode
from sppnet.structures import Boxes, FeatureMap, FeatureMaps

# Finding equal regions costs about as much as pooling a few hundred of them.
_WORTH_MERGING = 256


def row_length(maps: FeatureMaps, levels: Sequence[int]) -> int:
    """Return the length ``D`` of a feature vector: channels of all layers, times bins of all levels.

    Examples:
        >>> from sppnet.structures import Grid, ImageSize
        >>> size = ImageSize(32, 32)
        >>> maps = FeatureMaps((FeatureMap(torch.rand(8, 4, 4), "stride8", Grid(8.0, 4.0), size, size),))
        >>> row_length(maps, (2, 1))
        40
    """
    return sum(_layer_length(maps.of_layer(layer), levels) for layer in maps.layers)


def _layer_length(layer: tuple[FeatureMap, ...], levels: Sequence[int]) -> int:
    return layer[0].values.shape[0] * sum(n * n for n in levels)


@dataclass(frozen=True)
class _Group:
    """Boxes that are pooled from one map.

    Attributes:
        fmap: the map.
        index: int64 ``[M]``, indices of the boxes.
        regions: ``[R, 4]``, unique regions if there are many duplicates among those of the boxes.
        inverse: int64 ``[M]``, index of each box's region; None if ``regions`` has one region per box.
    """

    fmap: FeatureMap
    index: Tensor
    regions: Tensor
    inverse: Tensor | None

    def spread(self, values: Tensor) -> Tensor:
        """Repeat values ``[R, ...]`` of the regions for the boxes, ``[M, ...]``."""
        return values if self.inverse is None else values[self.inverse]


def _groups(
    maps: FeatureMaps, boxes: Boxes, levels: Sequence[int], target_area: float
) -> Iterator[tuple[int, list[_Group]]]:
    """Yield for each layer its feature length and the boxes, grouped by the scale that they choose."""
    boxes = Boxes(boxes.xyxy.to(maps.maps[0].values.device), boxes.size)
    for name in maps.layers:
        layer = maps.of_layer(name)
        if len(layer) == 1:
            chosen = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.xyxy.device)
        else:
            chosen = choose_scale(boxes, layer, target_area)
        groups: list[_Group] = []
        for i, fmap in enumerate(layer):
            index = (chosen == i).nonzero()[:, 0]
            if len(index):
                groups.append(_Group(fmap, index, *_merge(cells(boxes[index], fmap), fmap)))
        yield _layer_length(layer, levels), groups


def _merge(regions: Tensor, fmap: FeatureMap) -> tuple[Tensor, Tensor | None]:
    """Return the unique regions and the index of each region among them; None if merging saves little."""
    if len(regions) < _WORTH_MERGING:
        return regions, None
    height, width = fmap.values.shape[1:]
    x0, y0, x1, y1 = regions.unbind(1)
    key = ((x0 * (height + 1) + y0) * (width + 1) + x1) * (height + 1) + y1
    _, inverse = torch.unique(key, return_inverse=True)
    count = int(inverse.max()) + 1
    if count > 0.8 * len(regions):
        return regions, None
    first = torch.zeros(count, dtype=torch.int64, device=regions.device)
    first[inverse] = torch.arange(len(regions), device=regions.device)
    return regions[first], inverse


def pool_rows(
    maps: FeatureMaps,
    boxes: Boxes,
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
    target_area: float = TARGET_AREA,
) -> Tensor:
    """Compute the feature vectors of boxes by pyramid pooling of their cells (He et al. 2015, section 4.1).

    Each box is pooled at the scale that suits it; layers are concatenated. Boxes that cover the same cells of
    the same map are pooled once.

    Args:
        maps: feature maps of one image.
        boxes: ``[N, 4]`` on the image.
        levels: bins along each side of each level of the pyramid; (6, 3, 2, 1) in the paper.
        mode: ``"max"`` or ``"mean"``.
        target_area: area in pixels of the network's input that boxes should have at the chosen scale.

    Returns:
        float32 ``[N, D]`` on the device of the maps, with D of `row_length`; values of a layer are in the
        order of `sppnet.ops.region_pyramid_pool`.

    Raises:
        UserError: the boxes belong to an image of another size, or the levels are invalid.

    Examples:
        >>> from sppnet.structures import Grid, ImageSize
        >>> size = ImageSize(32, 32)
        >>> maps = FeatureMaps((FeatureMap(torch.rand(8, 4, 4), "stride8", Grid(8.0, 4.0), size, size),))
        >>> pool_rows(maps, Boxes(torch.tensor([[0.0, 0, 16, 8]]), size), levels=(2, 1)).shape
        torch.Size([1, 40])
    """
    _check_size(maps, boxes)
    parts: list[Tensor] = []
    for length, groups in _groups(maps, boxes, levels, target_area):
        part = torch.zeros(0, length, device=maps.maps[0].values.device)
        for i, group in enumerate(groups):
            pooled = region_pyramid_pool(group.fmap.values[None], [group.regions], levels, mode).float()
            features = group.spread(pooled)
            if len(groups) == 1:
                part = features
            else:
                part = features.new_empty(len(boxes), length) if i == 0 else part
                part[group.index] = features
        parts.append(part)
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
    """Compute ``pool_rows(maps, boxes, ...) @ weight.T + bias`` without storing the features.

    Args:
        maps: feature maps of one image.
        boxes: ``[N, 4]`` on the image.
        weight: ``[K, D]``, with D of `row_length`.
        bias: ``[K]``.
        levels: bins along each side of each level of the pyramid; (6, 3, 2, 1) in the paper.
        mode: ``"max"`` or ``"mean"``.
        target_area: area in pixels of the network's input that boxes should have at the chosen scale.

    Returns:
        float32 ``[N, K]`` on the device of the maps.

    Raises:
        UserError: the boxes belong to an image of another size, or the weight has another length.

    Examples:
        >>> from sppnet.structures import Grid, ImageSize
        >>> size = ImageSize(32, 32)
        >>> maps = FeatureMaps((FeatureMap(torch.rand(8, 4, 4), "stride8", Grid(8.0, 4.0), size, size),))
        >>> boxes = Boxes(torch.tensor([[0.0, 0, 16, 8]]), size)
        >>> score_rows(maps, boxes, torch.zeros(2, 8), torch.tensor([1.0, 2.0]), levels=(1,))
        tensor([[1., 2.]])
    """
    _check_size(maps, boxes)
    length = row_length(maps, levels)
    if weight.ndim != 2 or weight.shape[1] != length:
        raise UserError(
            "weight", f"a tensor [K, {length}] for these maps and levels", f"shape {list(weight.shape)}"
        )
    device = maps.maps[0].values.device
    scores = bias.to(device, torch.float32).repeat(len(boxes), 1)
    start = 0
    for length, groups in _groups(maps, boxes, levels, target_area):
        part = weight[:, start : start + length].to(device, torch.float32)
        for group in groups:
            values = group.fmap.values[None]
            scores[group.index] += group.spread(
                region_pyramid_scores(values, [group.regions], part, None, levels, mode)
            )
        start += length
    return scores


def iter_rows(
    maps: FeatureMaps,
    boxes: Boxes,
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
    target_area: float = TARGET_AREA,
    limit_bytes: int = 256 * 2**20,
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the features of `pool_rows` in chunks of bounded size.

    Args:
        maps: feature maps of one image.
        boxes: ``[N, 4]`` on the image.
        levels: bins along each side of each level of the pyramid; (6, 3, 2, 1) in the paper.
        mode: ``"max"`` or ``"mean"``.
        target_area: area in pixels of the network's input that boxes should have at the chosen scale.
        limit_bytes: maximum size of a chunk, which has at least one feature vector.

    Yields:
        The slice of the boxes and their features ``[n, D]``.

    Raises:
        UserError: as `pool_rows`.

    Examples:
        >>> from sppnet.structures import Grid, ImageSize
        >>> size = ImageSize(32, 32)
        >>> maps = FeatureMaps((FeatureMap(torch.rand(8, 4, 4), "stride8", Grid(8.0, 4.0), size, size),))
        >>> boxes = Boxes(torch.tensor([[0.0, 0, 16, 8]] * 3), size)
        >>> [len(features) for _, features in iter_rows(maps, boxes, (1,), limit_bytes=2 * 8 * 4)]
        [2, 1]
    """
    count = max(1, limit_bytes // (4 * row_length(maps, levels)))
    for start in range(0, len(boxes), count):
        piece = slice(start, min(start + count, len(boxes)))
        yield piece, pool_rows(maps, boxes[piece], levels, mode, target_area)


def image_rows(
    maps: FeatureMaps, levels: Sequence[int] = LEVELS, mode: Mode = "max", *, normalise: bool = False
) -> Tensor:
    """Compute the features of the full image, one vector per scale (He et al. 2015, section 3.1.4).

    Args:
        maps: feature maps of one image.
        levels: bins along each side of each level of the pyramid.
        mode: ``"max"`` or ``"mean"``.
        normalise: l2-normalise the features of each layer and level, so that none dominates.

    Returns:
        float32 ``[S, D]``, scales ascending.

    Examples:
        >>> from sppnet.structures import Grid, ImageSize
        >>> size = ImageSize(32, 32)
        >>> maps = FeatureMaps((FeatureMap(torch.rand(8, 4, 4), "stride8", Grid(8.0, 4.0), size, size),))
        >>> image_rows(maps, levels=(2, 1)).shape
        torch.Size([1, 40])
    """
    columns: list[Tensor] = []
    for layer in maps.layers:
        features: list[Tensor] = []
        for fmap in maps.of_layer(layer):
            height, width = fmap.values.shape[1:]
            whole = torch.tensor([[0, 0, width, height]], device=fmap.values.device)
            features.append(region_pyramid_pool(fmap.values[None], [whole], levels, mode).float())
        part = torch.cat(features)
        if normalise:
            lengths = [n * n * part.shape[1] // sum(m * m for m in levels) for n in levels]
            part = torch.cat([functional.normalize(level) for level in part.split(lengths, 1)], 1)
        columns.append(part)
    return torch.cat(columns, 1)


def _check_size(maps: FeatureMaps, boxes: Boxes) -> None:
    if boxes.size != maps.image:
        raise UserError("boxes.size", f"the size of the maps' image, {maps.image}", boxes.size)

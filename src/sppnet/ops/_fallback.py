"""Pyramid pooling by plain tensor operations, for float64, other devices, transforms and exported graphs.

Sizes may be symbolic: no branch depends on the height or width of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sppnet.ops.bins import count_bins


def _bin_cells(sizes: Tensor, level: int, longest: int) -> tuple[Tensor, Tensor]:
    """Return the cells ``[..., level, longest]`` of the bins of sides ``[...]``, and a mask of valid ones.

    Entries past the end of a bin repeat its last cell.
    """
    i = torch.arange(level, device=sizes.device)
    first = i * sizes[..., None] // level
    last = -(-(i + 1) * sizes[..., None] // level) - 1
    steps = first[..., None] + torch.arange(longest, device=sizes.device)
    return torch.minimum(steps, last[..., None]), steps <= last[..., None]


def _pool_side(values: Tensor, cells: Tensor, counted: Tensor, mode: str) -> Tensor:
    """Pool the last axis of ``values`` ``[B, C, R, S]`` by ``cells`` ``[n, k]`` to ``[B, C, R, n]``."""
    taken = values.index_select(-1, cells.flatten()).unflatten(-1, cells.shape)
    if mode == "max":
        return taken.max(-1).values
    return torch.where(counted, taken, 0).sum(-1) / counted.sum(-1)


def pool_maps(maps: Tensor, levels: Sequence[int], mode: str = "max") -> Tensor:
    """Compute `sppnet.ops.spatial_pyramid_pool` by plain tensor operations, for any graph.

    Args:
        maps: ``[B, C, H, W]``; H and W may be symbolic.
        levels: bins per side of each level.
        mode: ``"max"`` or ``"mean"``; sums are accumulated in float32 or wider.

    Returns:
        ``[B, C * bins]`` in the dtype of the maps.
    """
    height, width = maps.shape[2], maps.shape[3]
    values = maps.float() if mode == "mean" and maps.dtype in (torch.float16, torch.bfloat16) else maps
    parts: list[Tensor] = []
    for n in levels:
        # The longest bin has at most floor(size / n) + 2 cells for any remainder.
        sides = [torch.full((), size, device=maps.device, dtype=torch.int64) for size in (height, width)]
        rows, columns = (
            _bin_cells(s, n, size // n + 2) for s, size in zip(sides, (height, width), strict=True)
        )
        across = _pool_side(values, *columns, mode)
        pooled = _pool_side(across.transpose(2, 3), *rows, mode).transpose(2, 3)
        parts.append(pooled.flatten(1))
    return torch.cat(parts, 1).to(maps.dtype)


def pool_regions(maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str = "max") -> Tensor:
    """Compute `sppnet.ops.region_pyramid_pool` by plain tensor operations, in bounded memory.

    Args:
        maps: ``[B, C, H, W]``.
        regions: B integer tensors ``[N_i, 4]``, already validated.
        levels: bins per side of each level.
        mode: ``"max"`` or ``"mean"``.

    Returns:
        ``[sum N_i, C * bins]``.
    """
    channels, height, width = maps.shape[1:]
    # The bins of a level have about as many cells as the map; this limits a step to about 16 million values.
    most = max(1, (1 << 24) // max(1, channels * max((height + 2 * n) * (width + 2 * n) for n in levels)))
    rows = [
        torch.cat([_region_level(one, some.to(torch.int64), n, mode) for n in levels], 1)
        for one, boxes in zip(maps, regions, strict=True)
        for some in boxes.split(most)
        if len(some)
    ]
    return torch.cat(rows) if rows else maps.new_empty(0, channels * count_bins(levels))


def _region_level(one: Tensor, boxes: Tensor, n: int, mode: str) -> Tensor:
    """Pool one level of boxes ``[N, 4]`` of a map ``[C, H, W]`` to ``[N, C * n * n]``."""
    sides = boxes[:, 2:] - boxes[:, :2]
    columns, in_columns = _bin_cells(sides[:, 0], n, one.shape[2] // n + 2)
    rows, in_rows = _bin_cells(sides[:, 1], n, one.shape[1] // n + 2)
    at = (rows + boxes[:, 1, None, None])[:, :, None, :, None] * one.shape[2]
    at = (at + (columns + boxes[:, 0, None, None])[:, None, :, None, :]).flatten(3)
    taken = one.flatten(1)[:, at]
    if mode == "max":
        pooled = taken.max(-1).values
    else:
        counted = (in_rows[:, :, None, :, None] & in_columns[:, None, :, None, :]).flatten(3)
        total = torch.float64 if one.dtype == torch.float64 else torch.float32
        pooled = (torch.where(counted, taken.to(total), 0).sum(-1) / counted.sum(-1)).to(one.dtype)
    return pooled.transpose(0, 1).flatten(1)


def pool(
    maps: Sequence[Tensor], regions: Sequence[Tensor], levels: Sequence[int], mode: str = "max"
) -> Tensor:
    """Pool the regions of one batch, one batch of whole maps, or whole maps ``[C, H_i, W_i]``."""
    if regions:
        return pool_regions(maps[0], [one.to(maps[0].device) for one in regions], levels, mode)
    if maps[0].ndim == 4:
        return pool_maps(maps[0], levels, mode)
    return torch.cat([pool_maps(m[None], levels, mode) for m in maps])


def backward(
    grad: Tensor, maps: Sequence[Tensor], regions: Sequence[Tensor], levels: Sequence[int], mode: str
) -> tuple[Tensor, ...]:
    """Compute gradients of ``pool(maps, ...)`` for the maps that torch can transform and differentiate."""
    return torch.func.vjp(lambda *given: pool(given, regions, levels, mode), *maps)[1](grad)


def jvp(
    maps: Sequence[Tensor],
    tangents: Sequence[Tensor],
    regions: Sequence[Tensor],
    levels: Sequence[int],
    mode: str,
) -> Tensor:
    """Compute the derivative of ``pool(maps, ...)`` along ``tangents``.

    It is the transpose of `backward`, which is linear, because dual levels cannot be nested.
    """
    pulled = torch.func.vjp(lambda *given: pool(given, regions, levels, mode), *maps)
    return torch.func.vjp(pulled[1], torch.zeros_like(pulled[0]))[1](tuple(tangents))[0]

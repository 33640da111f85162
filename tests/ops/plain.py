"""The slow oracle: loops too plain to doubt. Nothing but the tests uses it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sppnet.ops.bins import bin_edges, count_bins


def pool_plain(maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    """Pyramid pooling of regions, one bin, one channel after the other.

    Args:
        maps: ``[B, C, H, W]``.
        regions: B integer tensors ``[N_i, 4]``, ``(x0, y0, x1, y1)`` in cells, half open.
        levels: bins a side, level by level.
        mode: ``"max"`` or ``"mean"``.

    Returns:
        ``[sum N_i, C * bins]``, ordered by level, then channel, bin row, bin column.
    """
    rows: list[Tensor] = []
    for one, boxes in zip(maps, regions, strict=True):
        for x0, y0, x1, y1 in boxes.tolist():
            values: list[Tensor] = []
            for n in levels:
                for channel in one:
                    for top, bottom in bin_edges(y1 - y0, n):
                        for left, right in bin_edges(x1 - x0, n):
                            cells = channel[y0 + top : y0 + bottom, x0 + left : x0 + right]
                            values.append(cells.max() if mode == "max" else cells.double().mean())
            rows.append(torch.stack(values).to(maps.dtype))
    return torch.stack(rows) if rows else maps.new_zeros(0, maps.shape[1] * count_bins(levels))

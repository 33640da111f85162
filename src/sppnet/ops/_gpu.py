"""Pyramid pooling on a GPU: what `sppnet.ops._triton` needs, prepared."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

_LARGEST_LEVEL = 64
"""A program of the GPU holds all bins of a level."""


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def usable(maps: Tensor, levels: Sequence[int]) -> bool:
    """Whether the kernels take these maps: CUDA or ROCm, not float64, no level above 64."""
    if not maps.is_cuda or maps.dtype == torch.float64 or max(levels) > _LARGEST_LEVEL:
        return False
    return _has_triton()


def _cells(maps: Sequence[Tensor] | Tensor) -> Tensor:
    """All maps cell by cell, ``[S, C]``; no copy of a batch that is channels_last."""
    if isinstance(maps, Tensor):
        return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    return torch.cat([m.permute(1, 2, 0).reshape(-1, m.shape[0]) for m in maps])


def _whole(maps: Sequence[Tensor] | Tensor) -> tuple[Tensor, Tensor]:
    """One box a map, covering it, and the map of each box."""
    rows: list[list[int]] = []
    first = 0
    for one in maps:
        height, width = one.shape[-2:]
        rows.append([first, height, width, 0, 0, width, height])
        first += height * width
    device = maps[0].device
    return torch.tensor(rows).to(device, non_blocking=True), torch.arange(len(rows), device=device)


def region_boxes(maps: Tensor, regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The table of boxes int64 ``[N, 7]`` of `sppnet.ops._triton`, and the map of each int64 ``[N]``."""
    height, width = maps.shape[2:]
    device = maps.device
    counts = torch.tensor([len(one) for one in regions]).to(device, non_blocking=True)
    total = sum(len(one) for one in regions)
    owners = torch.arange(len(regions), device=device).repeat_interleave(counts, output_size=total)
    boxes = torch.cat([one.to(device, torch.int64, non_blocking=True) for one in regions])
    sizes = torch.tensor([[height, width]]).to(device, non_blocking=True).expand(total, 2)
    return torch.cat([owners[:, None] * (height * width), sizes, boxes], 1), owners


def pool(
    maps: Sequence[Tensor] | Tensor,
    boxes: tuple[Tensor, Tensor] | None,
    levels: Sequence[int],
    mode: str,
    order: str,
) -> Tensor:
    """Rows of ``boxes``, from `region_boxes`, or of the whole maps where there are none."""
    from sppnet.ops import _triton

    table, _ = boxes or _whole(maps)
    return _triton.pool(_cells(maps), table, levels, mode, order)


def pool_backward(
    grad: Tensor,
    maps: Sequence[Tensor] | Tensor,
    boxes: tuple[Tensor, Tensor] | None,
    levels: Sequence[int],
    mode: str,
    order: str,
) -> list[Tensor]:
    """The gradient of `pool` for the maps, with their types and strides; of a batch a list of one."""
    from sppnet.ops import _triton

    table, owners = boxes or _whole(maps)
    sizes = [(m.shape[-2], m.shape[-1]) for m in maps]
    cells = _triton.pool_backward(grad, table, _cells(maps), owners, sizes, levels, mode, order)
    if isinstance(maps, Tensor):
        shaped = cells.view(len(maps), *maps.shape[2:], -1).permute(0, 3, 1, 2)
        return [torch.empty_like(maps).copy_(shaped)]
    parts = cells.split([h * w for h, w in sizes])
    return [
        torch.empty_like(m).copy_(part.view(*m.shape[1:], -1).permute(2, 0, 1))
        for m, part in zip(maps, parts, strict=True)
    ]

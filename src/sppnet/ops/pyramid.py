"""Pyramid pooling of whole maps and of regions: the contract, checks, dispatch and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops import _cpu
from sppnet.ops.bins import LEVELS, check_levels, count_bins

Mode = Literal["max", "mean"]
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def spatial_pyramid_pool(
    maps: Tensor | Sequence[Tensor], levels: Sequence[int] = LEVELS, mode: Mode = "max"
) -> Tensor:
    """Pool whole maps of any size into rows of one length (paper, section 2.2).

    Args:
        maps: ``[B, C, H, W]``, or a sequence of B maps ``[C, H_i, W_i]`` of one dtype and device, each of
            its own size. float32, float16, bfloat16 or float64, any strides; H and W at least 1.
        levels: bins a side of each level; bin i of n spans ``floor(i * size / n)`` to
            ``ceil((i + 1) * size / n)``, so a level may exceed the map.
        mode: ``"max"`` or ``"mean"``.

    Returns:
        ``[B, C * bins]`` in the dtype of the maps, ordered by level, then channel, bin row, bin column:
        ``cat([adaptive_max_pool2d(m, n).flatten(1) for n in levels], 1)``.

    Raises:
        UserError: maps of another shape or dtype or without cells, bad levels, an unknown mode.
    """
    sides = check_levels(levels)
    _check_mode(mode)
    if isinstance(maps, Tensor):
        _check_maps(maps)
        return _pool_batch(maps, sides, mode)
    several = list(maps)
    _check_list(several)
    return _pool_list(several, sides, mode)


def region_pyramid_pool(
    maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int] = LEVELS, mode: Mode = "max"
) -> Tensor:
    """Pool regions of maps, each into a row of one length (paper, section 3.1).

    Args:
        maps: ``[B, C, H, W]``, any floating dtype and strides.
        regions: B integer tensors ``[N_i, 4]`` on the device of the maps: ``(x0, y0, x1, y1)`` in cells,
            half open, ``0 <= x0 < x1 <= W`` and ``0 <= y0 < y1 <= H``. ``N_i`` may be 0.
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.

    Returns:
        ``[sum N_i, C * bins]`` in the dtype of the maps, each row ordered as in `spatial_pyramid_pool`.

    Raises:
        UserError: as `spatial_pyramid_pool`, and for regions that are not integers, of another shape,
            empty or outside their map; it names the first offender.
    """
    sides = check_levels(levels)
    _check_mode(mode)
    _check_maps(maps)
    lists = list(regions)
    _check_regions(maps, lists)
    return _pool_regions(maps, lists, sides, mode)


def region_pyramid_scores(
    maps: Tensor,
    regions: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
) -> Tensor:
    """Score regions with a linear head without storing their pooled rows.

    Equal to ``linear(region_pyramid_pool(maps, regions, levels, mode), weight, bias)`` up to rounding.

    Args:
        maps: ``[B, C, H, W]``.
        regions: as in `region_pyramid_pool`.
        weight: ``[K, C * bins]``, columns in the order of the pooled row.
        bias: ``[K]``, or None for none.
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.

    Returns:
        ``[sum N_i, K]`` in the dtype of ``weight``.

    Raises:
        UserError: as `region_pyramid_pool`, and for a weight or bias of another shape.
    """
    sides = check_levels(levels)
    _check_mode(mode)
    _check_maps(maps)
    lists = list(regions)
    _check_regions(maps, lists)
    _check_head(maps, weight, bias, sides)
    chunk = 256
    parts: list[Tensor] = []
    for i, boxes in enumerate(lists):
        for some in boxes.split(chunk):
            rows = _pool_regions(maps[i : i + 1], [some], sides, mode)
            parts.append(torch.nn.functional.linear(rows.to(weight.dtype), weight, bias))
    return torch.cat(parts) if parts else weight.new_zeros(0, weight.shape[0])


def _check_mode(mode: str) -> None:
    if mode not in ("max", "mean"):
        raise UserError("mode", '"max" or "mean"', repr(mode))


def _check_maps(maps: Tensor) -> None:
    if maps.ndim != 4 or maps.shape[2] < 1 or maps.shape[3] < 1:
        raise UserError("maps", "a tensor [B, C, H, W], H and W at least 1", f"shape {list(maps.shape)}")
    if maps.dtype not in _DTYPES:
        raise UserError("maps", "float32, float16, bfloat16 or float64", maps.dtype)


def _check_list(maps: list[Tensor]) -> None:
    if not maps:
        raise UserError("maps", "at least one map", "an empty sequence")
    first = maps[0]
    for i, one in enumerate(maps):
        if one.ndim != 3 or one.shape[1] < 1 or one.shape[2] < 1 or one.shape[0] != first.shape[0]:
            wanted = f"a tensor [C, H, W], C as in maps[0] ({first.shape[0]}), H and W at least 1"
            raise UserError(f"maps[{i}]", wanted, f"shape {list(one.shape)}")
        if one.dtype not in _DTYPES or one.dtype != first.dtype or one.device != first.device:
            wanted = f"{first.dtype} on {first.device} as maps[0], a floating type"
            raise UserError(f"maps[{i}]", wanted, f"{one.dtype} on {one.device}")


def _check_regions(maps: Tensor, regions: list[Tensor]) -> None:
    """What shapes and types tell; values are checked in bulk where the data are read."""
    if len(regions) != maps.shape[0]:
        raise UserError("regions", f"one tensor for each of the {maps.shape[0]} maps", f"{len(regions)}")
    for i, one in enumerate(regions):
        if one.ndim != 2 or one.shape[1] != 4:
            raise UserError(f"regions[{i}]", "a tensor [N, 4]", f"shape {list(one.shape)}")
        if one.dtype.is_floating_point or one.dtype.is_complex or one.dtype == torch.bool:
            raise UserError(f"regions[{i}]", "integer cells (x0, y0, x1, y1)", one.dtype)
        if one.device != maps.device:
            raise UserError(f"regions[{i}]", f"a tensor on {maps.device}, as the maps", one.device)


def _check_head(maps: Tensor, weight: Tensor, bias: Tensor | None, levels: list[int]) -> None:
    length = maps.shape[1] * count_bins(levels)
    if weight.ndim != 2 or weight.shape[1] != length:
        raise UserError("weight", f"a tensor [K, {length}]", f"shape {list(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise UserError("bias", f"a tensor [{weight.shape[0]}]", f"shape {list(bias.shape)}")


def _gather_regions(maps: Tensor, regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Owners int64 ``[N]`` and boxes int64 ``[N, 4]`` of all regions, each known to lie in its map."""
    boxes = torch.cat([one.to(torch.int64) for one in regions] or [torch.zeros(0, 4, dtype=torch.int64)])
    counts = torch.tensor([len(one) for one in regions])
    owners = torch.arange(len(regions)).repeat_interleave(counts)
    height, width = maps.shape[2:]
    x0, y0, x1, y1 = boxes.unbind(1)
    bad = (x0 < 0) | (y0 < 0) | (x1 <= x0) | (y1 <= y0) | (x1 > width) | (y1 > height)
    if bool(bad.any()):
        at = int(bad.nonzero()[0, 0])
        image = int(owners[at])
        row = at - int(counts[:image].sum())
        wanted = f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        raise UserError(f"regions[{image}][{row}]", wanted, boxes[at].tolist())
    return owners, boxes


def _whole(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One box a map, covering it."""
    boxes = torch.tensor([[0, 0, m.shape[-1], m.shape[-2]] for m in maps], dtype=torch.int64).reshape(-1, 4)
    return torch.arange(len(boxes)), boxes


@torch.library.custom_op("sppnet::pool_batch", mutates_args=())
def _pool_batch(maps: Tensor, levels: Sequence[int], mode: str) -> Tensor:
    if not len(maps):
        return maps.new_zeros(0, maps.shape[1] * count_bins(levels))
    return _cpu.pool(list(maps), *_whole(list(maps)), levels, mode)


@_pool_batch.register_fake
def _(maps: Tensor, levels: Sequence[int], mode: str) -> Tensor:
    return maps.new_empty(maps.shape[0], maps.shape[1] * count_bins(levels))


@torch.library.custom_op("sppnet::pool_batch_backward", mutates_args=())
def _pool_batch_backward(grad: Tensor, maps: Tensor, levels: Sequence[int], mode: str) -> Tensor:
    if not len(maps):
        return torch.zeros_like(maps)
    return torch.stack(_cpu.pool_backward(grad, list(maps), *_whole(list(maps)), levels, mode))


@_pool_batch_backward.register_fake
def _(grad: Tensor, maps: Tensor, levels: Sequence[int], mode: str) -> Tensor:
    return torch.empty_like(maps, memory_format=torch.contiguous_format)


@torch.library.custom_op("sppnet::pool_list", mutates_args=())
def _pool_list(maps: Sequence[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    return _cpu.pool(maps, *_whole(maps), levels, mode)


@_pool_list.register_fake
def _(maps: Sequence[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    return maps[0].new_empty(len(maps), maps[0].shape[0] * count_bins(levels))


@torch.library.custom_op("sppnet::pool_list_backward", mutates_args=())
def _pool_list_backward(grad: Tensor, maps: Sequence[Tensor], levels: Sequence[int], mode: str) -> list[Tensor]:
    return [g.contiguous() for g in _cpu.pool_backward(grad, maps, *_whole(maps), levels, mode)]


@_pool_list_backward.register_fake
def _(grad: Tensor, maps: Sequence[Tensor], levels: Sequence[int], mode: str) -> list[Tensor]:
    return [torch.empty_like(m, memory_format=torch.contiguous_format) for m in maps]


@torch.library.custom_op("sppnet::pool_regions", mutates_args=())
def _pool_regions(maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    owners, boxes = _gather_regions(maps, regions)
    if not len(boxes):
        return maps.new_zeros(0, maps.shape[1] * count_bins(levels))
    return _cpu.pool(list(maps), owners, boxes, levels, mode)


@_pool_regions.register_fake
def _(maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    return maps.new_empty(sum(one.shape[0] for one in regions), maps.shape[1] * count_bins(levels))


@torch.library.custom_op("sppnet::pool_regions_backward", mutates_args=())
def _pool_regions_backward(
    grad: Tensor, maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str
) -> Tensor:
    owners, boxes = _gather_regions(maps, regions)
    if not len(boxes):
        return torch.zeros_like(maps, memory_format=torch.contiguous_format)
    return torch.stack(_cpu.pool_backward(grad, list(maps), owners, boxes, levels, mode))


@_pool_regions_backward.register_fake
def _(grad: Tensor, maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    return torch.empty_like(maps, memory_format=torch.contiguous_format)


def _keep_maps(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    maps, levels, mode = inputs
    ctx.save_for_backward(*([maps] if isinstance(maps, Tensor) else maps))
    ctx.levels, ctx.mode = levels, mode


def _keep_regions(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    maps, regions, levels, mode = inputs
    ctx.save_for_backward(maps, *regions)
    ctx.levels, ctx.mode = levels, mode


_pool_batch.register_autograd(
    lambda ctx, grad: (_pool_batch_backward(grad, *ctx.saved_tensors, ctx.levels, ctx.mode), None, None),
    setup_context=_keep_maps,
)
_pool_list.register_autograd(
    lambda ctx, grad: (_pool_list_backward(grad, list(ctx.saved_tensors), ctx.levels, ctx.mode), None, None),
    setup_context=_keep_maps,
)


def _regions_backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    maps, *regions = ctx.saved_tensors
    return _pool_regions_backward(grad, maps, regions, ctx.levels, ctx.mode), [None] * len(regions), None, None


_pool_regions.register_autograd(_regions_backward, setup_context=_keep_regions)

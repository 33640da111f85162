"""The operations as torch knows them: what they compute where, what shape comes out, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops import _cpu, _torch
from sppnet.ops.bins import count_bins

_ROWS = 256


def _counts(regions: Sequence[Tensor]) -> list[int]:
    return [one.shape[0] for one in regions]


def check_regions(boxes: np.ndarray[Any, Any], counts: Sequence[int], height: int, width: int) -> None:
    """Raise a `UserError` that names the first of ``boxes`` ``[N, 4]`` that is empty or outside its map."""
    x0, y0, x1, y1 = boxes.T
    bad = (x0 < 0) | (y0 < 0) | (x1 <= x0) | (y1 <= y0) | (x1 > width) | (y1 > height)
    if bad.any():
        at = int(bad.argmax())
        owner = int(np.searchsorted(np.cumsum(counts), at, side="right"))
        row = at - sum(counts[:owner])
        wanted = f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        raise UserError(f"regions[{owner}][{row}]", wanted, boxes[at].tolist())


def _cpu_boxes(maps: Tensor, regions: Sequence[Tensor]) -> _cpu.Boxes:
    counts = _counts(regions)
    boxes = torch.cat([one.to(torch.int64) for one in regions]).numpy()
    check_regions(boxes, counts, maps.shape[2], maps.shape[3])
    x0, y0 = boxes[:, 0], boxes[:, 1]
    owners = np.repeat(np.arange(len(counts)), counts)
    return _cpu.Boxes(owners, x0, y0, boxes[:, 2] - x0, boxes[:, 3] - y0)


def _no_rows(maps: Tensor, count: int) -> bool:
    return count == 0 or maps.shape[-3] == 0


# Whole maps of one size.


@torch.library.custom_op("sppnet::pool_batch", mutates_args=())
def pool_batch(maps: Tensor, levels: Sequence[int], mode: str, order: str) -> Tensor:
    """``[B, C, H, W]`` to ``[B, C * bins]``."""
    if _no_rows(maps, len(maps)):
        return maps.new_empty(len(maps), maps.shape[1] * count_bins(levels))
    if maps.device.type == "cpu":
        return _cpu.pool(maps, _cpu.whole_plan(maps, levels, mode), mode, order == "bins")
    return _torch.pool_maps(maps, levels, mode, order)


@pool_batch.register_fake
def _(maps: Tensor, levels: Sequence[int], mode: str, order: str) -> Tensor:
    return maps.new_empty(maps.shape[0], maps.shape[1] * count_bins(levels))


@torch.library.custom_op("sppnet::pool_batch_backward", mutates_args=())
def pool_batch_backward(grad: Tensor, maps: Tensor, levels: Sequence[int], mode: str, order: str) -> Tensor:
    """The gradient of `pool_batch` for the maps, with their strides."""
    if _no_rows(maps, len(maps)):
        return torch.zeros_like(maps)
    if maps.device.type == "cpu":
        plan = _cpu.whole_plan(maps, levels, mode)
        return _cpu.pool_backward(grad, maps, plan, mode, order == "bins")[0]
    return _torch.backward(lambda x: _torch.pool_maps(x, levels, mode, order), maps, grad)


@pool_batch_backward.register_fake
def _(grad: Tensor, maps: Tensor, levels: Sequence[int], mode: str, order: str) -> Tensor:
    return torch.empty_like(maps)


# Whole maps, each of its own size.


@torch.library.custom_op("sppnet::pool_list", mutates_args=())
def pool_list(maps: Sequence[Tensor], levels: Sequence[int], mode: str, order: str) -> Tensor:
    """B times ``[C, H_i, W_i]`` to ``[B, C * bins]``."""
    if _no_rows(maps[0], len(maps)):
        return maps[0].new_empty(len(maps), 0)
    if maps[0].device.type == "cpu":
        return _cpu.pool(maps, _cpu.whole_plan(maps, levels, mode), mode, order == "bins")
    return torch.cat([_torch.pool_maps(m[None], levels, mode, order) for m in maps])


@pool_list.register_fake
def _(maps: Sequence[Tensor], levels: Sequence[int], mode: str, order: str) -> Tensor:
    return maps[0].new_empty(len(maps), maps[0].shape[0] * count_bins(levels))


@torch.library.custom_op("sppnet::pool_list_backward", mutates_args=())
def pool_list_backward(
    grad: Tensor, maps: Sequence[Tensor], levels: Sequence[int], mode: str, order: str
) -> list[Tensor]:
    """The gradients of `pool_list` for the maps, with their strides."""
    if _no_rows(maps[0], len(maps)):
        return [torch.zeros_like(m) for m in maps]
    if maps[0].device.type == "cpu":
        plan = _cpu.whole_plan(maps, levels, mode)
        return _cpu.pool_backward(grad, maps, plan, mode, order == "bins")
    return [
        _torch.backward(lambda x: _torch.pool_maps(x[None], levels, mode, order), m, g[None])
        for m, g in zip(maps, grad, strict=True)
    ]


@pool_list_backward.register_fake
def _(grad: Tensor, maps: Sequence[Tensor], levels: Sequence[int], mode: str, order: str) -> list[Tensor]:
    return [torch.empty_like(m) for m in maps]


# Regions.


@torch.library.custom_op("sppnet::pool_regions", mutates_args=())
def pool_regions(
    maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str, order: str
) -> Tensor:
    """``[B, C, H, W]`` and B times ``[N_i, 4]`` to ``[sum N_i, C * bins]``."""
    count = sum(_counts(regions))
    if _no_rows(maps, count):
        return maps.new_empty(count, maps.shape[1] * count_bins(levels))
    if maps.device.type == "cpu":
        plan = _cpu.region_plan(maps, _cpu_boxes(maps, regions), levels, mode)
        return _cpu.pool(maps, plan, mode, order == "bins")
    _check_on_device(maps, regions)
    return _torch.pool_regions(maps, regions, levels, mode, order)


@pool_regions.register_fake
def _(maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str, order: str) -> Tensor:
    return maps.new_empty(sum(one.shape[0] for one in regions), maps.shape[1] * count_bins(levels))


@torch.library.custom_op("sppnet::pool_regions_backward", mutates_args=())
def pool_regions_backward(
    grad: Tensor, maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str, order: str
) -> Tensor:
    """The gradient of `pool_regions` for the maps, with their strides."""
    if _no_rows(maps, sum(_counts(regions))):
        return torch.zeros_like(maps)
    if maps.device.type == "cpu":
        plan = _cpu.region_plan(maps, _cpu_boxes(maps, regions), levels, mode)
        return _cpu.pool_backward(grad, maps, plan, mode, order == "bins")[0]
    return _torch.backward(lambda x: _torch.pool_regions(x, regions, levels, mode, order), maps, grad)


@pool_regions_backward.register_fake
def _(
    grad: Tensor, maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str, order: str
) -> Tensor:
    return torch.empty_like(maps)


def _check_on_device(maps: Tensor, regions: Sequence[Tensor]) -> None:
    boxes = torch.cat([one.to(torch.int64) for one in regions]).cpu().numpy()
    check_regions(boxes, _counts(regions), maps.shape[2], maps.shape[3])


# Regions, scored.


@torch.library.custom_op("sppnet::score_regions", mutates_args=())
def score_regions(
    maps: Tensor, regions: Sequence[Tensor], weight: Tensor, levels: Sequence[int], mode: str
) -> Tensor:
    """The products ``[sum N_i, K]`` of the rows of `pool_regions` and ``weight`` ``[K, C * bins]``."""
    count = sum(_counts(regions))
    if _no_rows(maps, count) or not len(weight):
        return weight.new_zeros(count, len(weight))
    fused = maps.device.type == "cpu" and mode == "max" and maps.dtype != torch.float64
    if fused and weight.dtype != torch.float64:
        plan = _cpu.region_plan(maps, _cpu_boxes(maps, regions), levels, mode)
        return _cpu.score(maps, plan, weight, levels).to(weight.dtype).clone()
    parts = [
        pool_regions(maps[i : i + 1], [some], levels, mode, "channels").to(weight.dtype) @ weight.T
        for i, boxes in enumerate(regions)
        for some in boxes.split(_ROWS)
        if len(some)
    ]
    return torch.cat(parts)


@score_regions.register_fake
def _(maps: Tensor, regions: Sequence[Tensor], weight: Tensor, levels: Sequence[int], mode: str) -> Tensor:
    return weight.new_empty(sum(one.shape[0] for one in regions), weight.shape[0])


# Gradients.


def _keep_maps(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, *ctx.rest = inputs
    ctx.save_for_backward(*([maps] if isinstance(maps, Tensor) else maps))


def _batch_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return pool_batch_backward(grad, *ctx.saved_tensors, *ctx.rest), None, None, None


def _list_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return pool_list_backward(grad, list(ctx.saved_tensors), *ctx.rest), None, None, None


def _keep_regions(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, regions, *ctx.rest = inputs
    ctx.save_for_backward(maps, *regions)


def _region_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    maps, *regions = ctx.saved_tensors
    given = pool_regions_backward(grad, maps, regions, *ctx.rest)
    return given, [None] * len(regions), None, None, None


pool_batch.register_autograd(_batch_gradient, setup_context=_keep_maps)
pool_list.register_autograd(_list_gradient, setup_context=_keep_maps)
pool_regions.register_autograd(_region_gradient, setup_context=_keep_regions)

"""The operations as torch knows them: what they compute where, what shape comes out, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops import _cpu, _gpu, _torch
from sppnet.ops._registry import gradient_of, operation, pooling
from sppnet.ops.bins import count_bins

_ROW_BYTES = 64 << 20
"""Scores that are not fused are taken of this many bytes of rows at a time."""
_PLACES = 1 << 16
"""Cells that 16 bits can name."""


def _counts(regions: Sequence[Tensor]) -> list[int]:
    return [one.shape[0] for one in regions]


def check_count(regions: Sequence[Tensor], maps: Tensor) -> None:
    """Raise a `UserError` unless there are as many tensors of regions as maps."""
    if len(regions) != maps.shape[0]:
        raise UserError("regions", f"one tensor for each of the {maps.shape[0]} maps", len(regions))


def check_regions(
    boxes: np.ndarray[Any, Any], counts: Sequence[int], height: int, width: int
) -> np.ndarray[Any, Any]:
    """Widths and heights ``[2, N]`` of ``boxes``: x0, y0, x1 and y1 ``[4, N]``, at least one.

    Raises:
        UserError: it names the first that is empty or outside its map.
    """
    sides = boxes[2:] - boxes[:2]
    if boxes.min() >= 0 and sides.min() >= 1 and boxes[2].max() <= width and boxes[3].max() <= height:
        return sides
    x0, y0, x1, y1 = boxes
    bad = (x0 < 0) | (y0 < 0) | (x1 <= x0) | (y1 <= y0) | (x1 > width) | (y1 > height)
    at = int(bad.argmax())
    owner = int(np.searchsorted(np.cumsum(counts), at, side="right"))
    row = at - sum(counts[:owner])
    wanted = f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
    raise UserError(f"regions[{owner}][{row}]", wanted, boxes[:, at].tolist())


def _checked(maps: Tensor, regions: Sequence[Tensor]) -> _cpu.Boxes:
    """All regions, checked on the CPU; those on another device are waited for."""
    counts, given = _counts(regions), torch.cat([one.to("cpu", torch.int64) for one in regions]).numpy()
    boxes = np.ascontiguousarray(given.T)
    sides = check_regions(boxes, counts, maps.shape[2], maps.shape[3])
    return _cpu.Boxes(boxes, sides, tuple(counts))


def _no_rows(maps: Tensor, count: int) -> bool:
    return count == 0 or maps.shape[-3] == 0


def _like_maps(grad: Tensor, maps: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(maps)


# Whole maps of one size.


def _keep_maps(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, *ctx.rest = inputs
    ctx.save_for_backward(*([maps] if isinstance(maps, Tensor) else maps))


def _batch_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return pool_batch_backward(grad, *ctx.saved_tensors, *ctx.rest), None, None, None


def _pool_batch_shape(maps: Tensor, levels: Sequence[int], mode: str, order: str) -> Tensor:
    return maps.new_empty(maps.shape[0], maps.shape[1] * count_bins(levels))


@pooling(
    "(Tensor maps, int[] levels, str mode, str order) -> Tensor",
    _pool_batch_shape,
    _keep_maps,
    _batch_gradient,
)
def pool_batch(maps: Tensor, levels: Sequence[int], mode: str, order: str) -> Tensor:
    """``[B, C, H, W]`` to ``[B, C * bins]``."""
    if _no_rows(maps, len(maps)):
        return _pool_batch_shape(maps, levels, mode, order)
    if maps.device.type == "cpu":
        return _cpu.pool(maps, _cpu.whole_plan(maps, levels, mode), mode, order == "bins")
    if _gpu.usable(maps):
        return _gpu.pool(maps, levels, mode, order)
    return _torch.pool_maps(maps, levels, mode, order)


@gradient_of("(Tensor grad, Tensor maps, int[] levels, str mode, str order) -> Tensor", _like_maps)
def pool_batch_backward(grad: Tensor, maps: Tensor, levels: Sequence[int], mode: str, order: str) -> Tensor:
    """The gradient of `pool_batch` for the maps, with their strides."""
    if _no_rows(maps, len(maps)):
        return torch.zeros_like(maps)
    if maps.device.type == "cpu":
        plan = _cpu.whole_plan(maps, levels, mode)
        return _cpu.pool_backward(grad, maps, plan, mode, order == "bins")[0]
    if _gpu.usable(maps):
        return _gpu.pool_backward(grad, maps, None, levels, mode, order)[0]
    return _torch.backward(lambda x: _torch.pool_maps(x, levels, mode, order), maps, grad)


# Whole maps of one size whose gradient will be asked for: it need not look for the maxima again.


def worth_placing(maps: Tensor, mode: str) -> bool:
    """Whether `pool_placed` can take the place of `pool_batch`, and its gradient will be asked for."""
    wanted = torch.is_grad_enabled() and maps.requires_grad and mode == "max"
    # An exported program has no backward pass, but would have the limit on the maps' size.
    able = maps.device.type == "cpu" and maps.dtype == torch.float32 and not torch.compiler.is_exporting()
    return wanted and able and maps.shape[2] * maps.shape[3] <= _PLACES


def _keep_places(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    maps, *ctx.rest = inputs
    ctx.save_for_backward(output[1], maps)
    ctx.mark_non_differentiable(output[1])
    # Else zeros would be made for the places, which are as many as the rows.
    ctx.set_materialize_grads(False)


def _placed_gradient(ctx: Any, grad: Tensor | None, _: object) -> tuple[Any, ...]:
    if grad is None:
        return None, None, None
    return pool_placed_backward(grad, *ctx.saved_tensors, *ctx.rest), None, None


def _pool_placed_shape(maps: Tensor, levels: Sequence[int], order: str) -> tuple[Tensor, Tensor]:
    bins = count_bins(levels)
    found = maps.new_empty(maps.shape[0], (maps.shape[1] + 15) // 16, bins, 16, dtype=torch.int16)
    return maps.new_empty(maps.shape[0], maps.shape[1] * bins), found


@pooling(
    "(Tensor maps, int[] levels, str order) -> (Tensor, Tensor)",
    _pool_placed_shape,
    _keep_places,
    _placed_gradient,
)
def pool_placed(maps: Tensor, levels: Sequence[int], order: str) -> tuple[Tensor, Tensor]:
    """Max pooling of float32 ``[B, C, H, W]`` on the CPU, and where the maxima are."""
    if _no_rows(maps, len(maps)):
        return _pool_placed_shape(maps, levels, order)
    return _cpu.pool_placed(maps, levels, order == "bins")


def _pool_placed_backward_shape(
    grad: Tensor, found: Tensor, maps: Tensor, levels: Sequence[int], order: str
) -> Tensor:
    return torch.empty_like(maps)


@gradient_of(
    "(Tensor grad, Tensor found, Tensor maps, int[] levels, str order) -> Tensor", _pool_placed_backward_shape
)
def pool_placed_backward(
    grad: Tensor, found: Tensor, maps: Tensor, levels: Sequence[int], order: str
) -> Tensor:
    """The gradient of `pool_placed` for the maps, with their strides."""
    if _no_rows(maps, len(maps)):
        return torch.zeros_like(maps)
    return _cpu.pool_placed_backward(grad, found, maps, levels, order == "bins")


# Whole maps, each of its own size.


def _list_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return pool_list_backward(grad, list(ctx.saved_tensors), *ctx.rest), None, None, None


def _pool_list_shape(maps: Sequence[Tensor], levels: Sequence[int], mode: str, order: str) -> Tensor:
    return maps[0].new_empty(len(maps), maps[0].shape[0] * count_bins(levels))


@pooling(
    "(Tensor[] maps, int[] levels, str mode, str order) -> Tensor",
    _pool_list_shape,
    _keep_maps,
    _list_gradient,
)
def pool_list(maps: Sequence[Tensor], levels: Sequence[int], mode: str, order: str) -> Tensor:
    """B times ``[C, H_i, W_i]`` to ``[B, C * bins]``."""
    if _no_rows(maps[0], len(maps)):
        return _pool_list_shape(maps, levels, mode, order)
    if maps[0].device.type == "cpu":
        return _cpu.pool(maps, _cpu.whole_plan(maps, levels, mode), mode, order == "bins")
    if _gpu.usable(maps):
        return _gpu.pool(maps, levels, mode, order)
    return torch.cat([_torch.pool_maps(m[None], levels, mode, order) for m in maps])


def _pool_list_backward_shape(
    grad: Tensor, maps: Sequence[Tensor], levels: Sequence[int], mode: str, order: str
) -> list[Tensor]:
    return [torch.empty_like(m) for m in maps]


@gradient_of(
    "(Tensor grad, Tensor[] maps, int[] levels, str mode, str order) -> Tensor[]", _pool_list_backward_shape
)
def pool_list_backward(
    grad: Tensor, maps: Sequence[Tensor], levels: Sequence[int], mode: str, order: str
) -> list[Tensor]:
    """The gradients of `pool_list` for the maps, with their strides."""
    if _no_rows(maps[0], len(maps)):
        return [torch.zeros_like(m) for m in maps]
    if maps[0].device.type == "cpu":
        plan = _cpu.whole_plan(maps, levels, mode)
        return _cpu.pool_backward(grad, maps, plan, mode, order == "bins")
    if _gpu.usable(maps):
        return _gpu.pool_backward(grad, maps, None, levels, mode, order)
    return [
        _torch.backward(lambda x: _torch.pool_maps(x[None], levels, mode, order), m, g[None])
        for m, g in zip(maps, grad, strict=True)
    ]


# Regions.


def _keep_regions(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, regions, *ctx.rest = inputs
    ctx.save_for_backward(maps, *regions)


def _region_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    maps, *regions = ctx.saved_tensors
    given = pool_regions_backward(grad, maps, regions, *ctx.rest)
    return given, [None] * len(regions), None, None, None


def _pool_regions_shape(
    maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str, order: str
) -> Tensor:
    return maps.new_empty(sum(_counts(regions)), maps.shape[1] * count_bins(levels))


@pooling(
    "(Tensor maps, Tensor[] regions, int[] levels, str mode, str order) -> Tensor",
    _pool_regions_shape,
    _keep_regions,
    _region_gradient,
)
def pool_regions(
    maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str, order: str
) -> Tensor:
    """``[B, C, H, W]`` and B times ``[N_i, 4]`` to ``[sum N_i, C * bins]``."""
    check_count(regions, maps)
    count = sum(_counts(regions))
    if _no_rows(maps, count):
        return _pool_regions_shape(maps, regions, levels, mode, order)
    if maps.device.type == "cpu":
        plan = _cpu.region_plan(maps, _checked(maps, regions), levels, mode, paper=order != "bins")
        return _cpu.pool(maps, plan, mode, order == "bins")
    if _gpu.usable(maps):
        # Checked here, regions on the CPU keep no device waiting.
        known = all(one.is_cpu for one in regions)
        if known:
            _checked(maps, regions)
        there = _gpu.regions_there(maps, regions)
        rows, all_inside = _gpu.pool_regions(maps, there, levels, mode, order, known)
        if not all_inside:
            _checked(maps, regions)
        return rows
    _checked(maps, regions)
    return _torch.pool_regions(maps, [one.to(maps.device) for one in regions], levels, mode, order)


@gradient_of(
    "(Tensor grad, Tensor maps, Tensor[] regions, int[] levels, str mode, str order) -> Tensor",
    _like_maps,
)
def pool_regions_backward(
    grad: Tensor, maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str, order: str
) -> Tensor:
    """The gradient of `pool_regions` for the maps, with their strides."""
    if _no_rows(maps, sum(_counts(regions))):
        return torch.zeros_like(maps)
    if maps.device.type == "cpu":
        plan = _cpu.region_plan(maps, _checked(maps, regions), levels, mode)
        return _cpu.pool_backward(grad, maps, plan, mode, order == "bins")[0]
    if _gpu.usable(maps):
        return _gpu.pool_backward(grad, maps, _gpu.regions_there(maps, regions), levels, mode, order)[0]
    there = [one.to(maps.device) for one in regions]
    return _torch.backward(lambda x: _torch.pool_regions(x, there, levels, mode, order), maps, grad)


# Regions, scored.


@operation("(Tensor maps, Tensor[] regions, Tensor weight, int[] levels, str mode) -> Tensor")
def score_regions(
    maps: Tensor, regions: Sequence[Tensor], weight: Tensor, levels: Sequence[int], mode: str
) -> Tensor:
    """The products ``[sum N_i, K]`` of the rows of `pool_regions` and ``weight`` ``[K, C * bins]``."""
    check_count(regions, maps)
    count = sum(_counts(regions))
    if _no_rows(maps, count) or not len(weight):
        return weight.new_zeros(count, len(weight))
    fused = maps.device.type == "cpu" and mode == "max" and maps.dtype != torch.float64
    if fused and weight.dtype != torch.float64:
        scores = _cpu.score(maps, _checked(maps, regions), weight, levels)
        if scores is not None:
            return scores.to(weight.dtype)
    most = max(64, _ROW_BYTES // max(1, weight.shape[1] * weight.element_size()))
    parts = [
        pool_regions(maps[i : i + 1], [some], levels, mode, "channels").to(weight.dtype) @ weight.T
        for i, boxes in enumerate(regions)
        for some in boxes.split(most)
        if len(some)
    ]
    return torch.cat(parts)


@torch.library.register_fake("sppnet::score_regions")
def _(maps: Tensor, regions: Sequence[Tensor], weight: Tensor, levels: Sequence[int], mode: str) -> Tensor:
    return weight.new_empty(sum(one.shape[0] for one in regions), weight.shape[0])

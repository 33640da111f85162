"""Pyramid pooling on the CPU: the args struct of each kernel call, outputs, and threads.

float32, float16 and bfloat16 only. ``maps`` is a batch ``[B, C, H, W]`` or a sequence of ``[C, H_i, W_i]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sppnet.ops.cpu import args
from sppnet.ops.cpu.kernels import max as max_kernels
from sppnet.ops.cpu.kernels import mean as mean_kernels
from sppnet.ops.cpu.launch import NANS, run_kernel
from sppnet.ops.cpu.memory import LARGE, new_like, new_rows
from sppnet.ops.cpu.plan import (
    WIDTH,
    Boxes,
    Integers,
    Plan,
    map_table,
    region_plan,
    units_of,
    whole_plan,
)
from sppnet.ops.cpu.scoring import score

_CACHE_BYTES = 256 << 10
"""Maximum size in bytes of the blocks of one thread before they are written."""

_MAX = {
    torch.float16: max_kernels.max_16,
    torch.bfloat16: max_kernels.max_16,
    torch.float32: max_kernels.max_32,
}
_PAPER = {
    torch.float16: max_kernels.paper_16,
    torch.bfloat16: max_kernels.paper_16,
    torch.float32: max_kernels.paper_32,
}
_MAX_GRADIENT = {
    torch.float16: max_kernels.max_gradient_16,
    torch.bfloat16: max_kernels.max_gradient_16,
    torch.float32: max_kernels.max_gradient_32,
}


def pool(maps: Sequence[Tensor] | Tensor, plan: Plan, mode: str) -> Tensor:
    """Compute features ``[N, C * bins]`` of the boxes of ``plan``, in the dtype of the maps."""
    first = maps[0]
    channels, dtype = first.shape[0], first.dtype
    if mode == "mean" and dtype != torch.float32:
        wide = maps.float() if isinstance(maps, Tensor) else [m.float() for m in maps]
        return pool(wide, replace(plan, maps=map_table(wide)), "mean").to(dtype)
    out = new_rows(len(plan.boxes), channels * plan.bins, dtype)
    lanes = WIDTH // first.element_size()
    # Large outputs are written past the caches, because they would evict everything else.
    large, aligned = out.numel() * out.element_size() >= LARGE, out.data_ptr() % WIDTH == 0
    units = units_of(plan, channels, lanes, 2 * torch.get_num_threads())
    scratch = 3 * plan.bins * WIDTH + plan.table_bytes
    size = channels * first.element_size()
    fields = {
        args.CHANNELS: channels,
        args.STREAMED: large and aligned and channels % lanes == 0,
        args.ROWS: out.data_ptr(),
        args.NAN_COUNT: NANS[dtype],
    }
    if plan.paper and aligned and run_kernel(_PAPER[dtype], plan, units, scratch, size, fields):
        return out
    run_kernel(_MAX[dtype] if mode == "max" else mean_kernels.mean_32, plan, units, scratch, size, fields)
    return out


def pool_backward(grad: Tensor, maps: Sequence[Tensor] | Tensor, plan: Plan, mode: str) -> list[Tensor]:
    """Compute gradients of `pool` for the maps, with their dtypes and strides; a list of one for a batch."""
    given = _rows_of(grad)
    batch = isinstance(maps, Tensor)
    result = [new_like(m, torch.float32) for m in ([maps] if batch else maps)]
    targets = map_table(result[0] if batch else result)
    if mode == "mean":
        _mean_backward(given, maps[0].shape[0], plan, targets)
    else:
        _max_backward(given, maps, plan, targets)
    return [g.to(maps[0].dtype) for g in result]


def _mean_backward(given: Tensor, channels: int, plan: Plan, targets: Integers) -> None:
    units = units_of(plan, channels, WIDTH // 4, 0)
    fields = {
        args.CHANNELS: channels,
        args.ROW_BYTES: _row_bytes(given, plan),
        args.ROWS: given.data_ptr(),
    }
    scratch, plan = plan.cells * WIDTH + WIDTH, replace(plan, maps=targets)
    run_kernel(mean_kernels.mean_gradient_32, plan, units, scratch, channels * 4, fields)


def _max_backward(given: Tensor, maps: Sequence[Tensor] | Tensor, plan: Plan, targets: Integers) -> None:
    channels, dtype, item = maps[0].shape[0], maps[0].dtype, maps[0].element_size()
    entry = _MAX_GRADIENT[dtype]
    if item == 2 and plan.cells >= 1 << 16:
        entry = max_kernels.max_gradient_16_large
    units = units_of(plan, channels, WIDTH // item, 0)
    blocks = 1 + given.element_size() // item
    scratch = plan.bins * WIDTH + plan.table_bytes + blocks * plan.cells * WIDTH
    fields = {
        args.CHANNELS: channels,
        args.ROW_BYTES: _row_bytes(given, plan),
        args.ROWS: given.data_ptr(),
        args.GRADIENTS: targets.ctypes.data,
        args.NAN_COUNT: NANS[dtype],
    }
    run_kernel(entry, plan, units, scratch, channels * 4, fields)


def _rows_of(grad: Tensor) -> Tensor:
    """Return contiguous float32 gradients of the features; one row if all are equal, as after a sum."""
    given = grad[:1] if grad.stride(0) == 0 else grad
    return (given if given.dtype == torch.float32 else given.float()).contiguous()


def _row_bytes(given: Tensor, plan: Plan) -> int:
    """Return the bytes from one row of gradients to the next; 0 if all boxes share one."""
    return given[0].numel() * given.element_size() if len(given) == len(plan.boxes) else 0


def pool_argmax(maps: Tensor, levels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compute max pooling of whole maps, float32 ``[B, C, H, W]``, and the argmax indices.

    Returns:
        The features, as of `pool`, and int16 ``[B, blocks, bins, 16]``: the cell of the first maximum of each
        bin, as an unsigned number, in blocks of 16 channels. Maps may have up to 65,536 cells.
    """
    plan = whole_plan(maps, levels, "max")
    channels, lanes = maps.shape[1], WIDTH // 4
    out = new_rows(len(maps), channels * plan.bins, torch.float32)
    argmax = torch.empty(len(maps), -(-channels // lanes), plan.bins, lanes, dtype=torch.int16, device="cpu")
    several = max(1, _CACHE_BYTES // (plan.cells * WIDTH))
    units = units_of(plan, channels, lanes, 0)
    fields = {
        args.CHANNELS: channels,
        args.BLOCK_RUN: several,
        args.ROWS: out.data_ptr(),
        args.ARGMAX: argmax.data_ptr(),
        args.NAN_COUNT: NANS[maps.dtype],
        args.PREFETCH_LINES: _prefetch_lines(maps, plan, several),
    }
    scratch = (4 * plan.bins + several * plan.cells) * WIDTH
    if not run_kernel(max_kernels.argmax_32, plan, units, scratch, channels * 4, fields):
        run_kernel(max_kernels.argmax_32_keys, plan, units, scratch, channels * 4, fields)
    return out, argmax


def _prefetch_lines(maps: Tensor, plan: Plan, several: int) -> int:
    """Return the number of cache lines to prefetch per bin, so that the next unit is in the caches in time.

    It is 0 if the memory of the next unit does not follow, or if a unit is too large for the cache.
    """
    channels_last = maps.is_contiguous(memory_format=torch.channels_last)
    together = channels_last and maps.shape[1] * 4 <= several * WIDTH
    if plan.cells * WIDTH > _CACHE_BYTES or not (together or maps.is_contiguous()):
        return 0
    sides, parents = plan.levels[:, args.LEVEL_SIDE], plan.levels[:, args.LEVEL_PARENT]
    return -(-plan.cells // int((sides**2)[parents == np.arange(len(parents))].sum()))


def pool_argmax_backward(grad: Tensor, argmax: Tensor, maps: Tensor, levels: Sequence[int]) -> Tensor:
    """Compute the gradient of `pool_argmax` for the maps, whose values are not read."""
    result = new_like(maps, torch.float32)
    plan = whole_plan(result, levels, "max")
    given = _rows_of(grad)
    channels = maps.shape[1]
    several = max(1, _CACHE_BYTES // (plan.cells * WIDTH))
    # Large gradients are written past the caches if all vectors are aligned to their width.
    starts = [result.data_ptr(), *(4 * result.stride(axis) for axis in (0, 2, 3))]
    units = units_of(plan, channels, WIDTH // 4, 0)
    fields = {
        args.CHANNELS: channels,
        args.STREAMED: result.numel() * 4 >= LARGE and not any(start % WIDTH for start in starts),
        args.ROW_BYTES: _row_bytes(given, plan),
        args.BLOCK_RUN: several,
        args.ROWS: given.data_ptr(),
        args.ARGMAX: argmax.data_ptr(),
    }
    scratch = several * plan.cells * WIDTH
    run_kernel(max_kernels.argmax_gradient_32, plan, units, scratch, channels * 4, fields)
    return result


__all__ = [
    "Boxes",
    "pool",
    "pool_argmax",
    "pool_argmax_backward",
    "pool_backward",
    "region_plan",
    "score",
    "whole_plan",
]

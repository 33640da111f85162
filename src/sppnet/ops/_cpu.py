"""Pyramid pooling on the CPU: what `sppnet.ops._kernels` needs, prepared, and shared among threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet.ops import _kernels
from sppnet.ops._memory import LARGE, new_like, new_rows
from sppnet.ops._plan import (
    WIDTH,
    Boxes,
    Plan,
    Words,
    map_table,
    near_order,
    region_plan,
    units_of,
    weight_blocks,
    whole_plan,
)
from sppnet.ops._threads import share

_GROUPS = 4
_THREAD_BYTES = 512 << 10
"""Less to read and write than this is done before another thread is awake."""

_NEAR_BYTES = 256 << 10
"""What one thread keeps before it is written."""

_KEYS: dict[torch.dtype, tuple[Any, Any]] = {
    torch.float16: (np.int16(0), np.int16((1 << 10) - 1)),
    torch.bfloat16: (np.int16(0), np.int16((1 << 7) - 1)),
    torch.float32: (np.int32(0), np.int32((1 << 23) - 1)),
    torch.float64: (np.int64(0), np.int64((1 << 52) - 1)),
}
"""For each type an integer as wide and the number of its NaNs of either sign."""


def _shape(
    plan: Plan,
    channels: int,
    *,
    streamed: bool = False,
    by_bin: bool = False,
    together: int = 0,
    row_bytes: int = 0,
    several: int = 1,
) -> Words:
    layout = [channels, plan.bins, *plan.doublings, plan.across, streamed, by_bin]
    numbers = [*layout, together, row_bytes, several]
    return np.array(numbers, np.int64)


def _share(count: int, plan: Plan, size: int, scratch: int, call: Callable[[int, int, int], None]) -> None:
    """Share ``call(scratch address, first, last)``, each thread with ``scratch`` bytes of its own.

    ``size`` is that of a pooled value of all channels, in bytes.
    """

    def job(runs: Iterator[tuple[int, int]]) -> None:
        memory = torch.empty(scratch, dtype=torch.uint8)
        for first, last in runs:
            call(memory.data_ptr(), first, last)

    work = size * (len(plan.boxes) * plan.bins + int((plan.maps[:, 1] * plan.maps[:, 2]).sum()))
    share(count, job, 1 + work // _THREAD_BYTES)


def pool(maps: Sequence[Tensor] | Tensor, plan: Plan, mode: str, by_bin: bool) -> Tensor:
    """Rows of the boxes of ``plan``, in the type of the maps."""
    first = maps[0]
    channels, dtype = first.shape[0], first.dtype
    if mode == "mean" and dtype in (torch.float16, torch.bfloat16):
        return _pool_widened(maps, plan, by_bin).to(dtype)
    out = new_rows(len(plan.boxes), channels * plan.bins, dtype)
    like, turn = _KEYS[dtype]
    lanes = WIDTH // first.element_size()
    # Large outputs are written past the caches, which they would only flush.
    streamed = out.numel() * out.element_size() >= LARGE and channels % lanes == 0
    shape = _shape(plan, channels, streamed=streamed and out.data_ptr() % WIDTH == 0, by_bin=by_bin)
    units = units_of(plan, channels, lanes, 2 * torch.get_num_threads())
    places = [x.ctypes.data for x in (plan.maps, plan.boxes, units, plan.levels)]
    depth, target, shaped = len(plan.levels), out.data_ptr(), shape.ctypes.data
    scratch = 3 * plan.bins * WIDTH + plan.table_bytes

    def call(memory: int, start: int, stop: int) -> None:
        if mode == "max":
            _kernels.max_units(like, *places, depth, target, shaped, turn, memory, start, stop)
        else:
            real = like.dtype.type(0).astype(f"f{first.element_size()}")
            _kernels.mean_units(like, real, *places, depth, target, shaped, memory, start, stop)

    _share(len(units), plan, channels * first.element_size(), scratch, call)
    return out


def _pool_widened(maps: Sequence[Tensor] | Tensor, plan: Plan, by_bin: bool) -> Tensor:
    """The means of half floats, as float32."""
    wide = maps.float() if isinstance(maps, Tensor) else [m.float() for m in maps]
    return pool(wide, replace(plan, maps=map_table(wide)), "mean", by_bin)


def pool_backward(
    grad: Tensor, maps: Sequence[Tensor] | Tensor, plan: Plan, mode: str, by_bin: bool
) -> list[Tensor]:
    """The gradient of `pool` for the maps, with their types and strides; of a batch a list of one."""
    dtype = maps[0].dtype
    total = torch.float64 if dtype == torch.float64 else torch.float32
    given = _rows_of(grad, total)
    batch = isinstance(maps, Tensor)
    result = [new_like(m, total) for m in ([maps] if batch else maps)]
    targets = map_table(result[0] if batch else result)
    if mode == "mean":
        _mean_backward(given, maps[0].shape[0], plan, targets, by_bin)
    else:
        _max_backward(given, maps, plan, targets, by_bin)
    return [g.to(dtype) for g in result]


def _mean_backward(given: Tensor, channels: int, plan: Plan, targets: Words, by_bin: bool) -> None:
    real = np.float64(0) if given.dtype == torch.float64 else np.float32(0)
    shape = _shape(plan, channels, by_bin=by_bin, row_bytes=_row_bytes(given, plan))
    units = units_of(plan, channels, WIDTH // given.element_size(), 0)
    places = [x.ctypes.data for x in (targets, targets, plan.boxes, units, plan.levels)]
    depth, rows, shaped = len(plan.levels), given.data_ptr(), shape.ctypes.data

    def call(memory: int, first: int, last: int) -> None:
        _kernels.mean_gradient_units(real, *places, depth, rows, shaped, memory, first, last)

    _share(len(units), plan, channels * given.element_size(), plan.cells * WIDTH + WIDTH, call)


def _max_backward(
    given: Tensor, maps: Sequence[Tensor] | Tensor, plan: Plan, targets: Words, by_bin: bool
) -> None:
    channels, dtype = maps[0].shape[0], maps[0].dtype
    real = np.float64(0) if dtype == torch.float64 else np.float32(0)
    source, bits, turn = (maps, *_KEYS[dtype])
    if dtype == torch.float64:
        source, bits, turn = _ranks(maps), np.int32(0), np.int32(0)
    like = np.int32(0) if bits.itemsize == 2 and plan.cells < 1 << 16 else np.int64(0)
    shape = _shape(plan, channels, by_bin=by_bin, row_bytes=_row_bytes(given, plan))
    units = units_of(plan, channels, WIDTH // bits.itemsize, 0)
    origins = map_table(source)
    places = [x.ctypes.data for x in (origins, targets, plan.boxes, units, plan.levels)]
    depth, rows, shaped = len(plan.levels), given.data_ptr(), shape.ctypes.data
    blocks = 1 + given.element_size() // bits.itemsize
    scratch = plan.bins * WIDTH + plan.table_bytes + blocks * plan.cells * WIDTH

    def call(memory: int, first: int, last: int) -> None:
        _kernels.max_gradient_units(bits, like, real, *places, depth, rows, shaped, turn, memory, first, last)

    _share(len(units), plan, channels * given.element_size(), scratch, call)


def _rows_of(grad: Tensor, dtype: torch.dtype) -> Tensor:
    """Contiguous rows of gradients, or one where all are the same, as a sum gives them back."""
    return (grad[:1] if grad.stride(0) == 0 else grad).to(dtype).contiguous()


def _row_bytes(given: Tensor, plan: Plan) -> int:
    """From one row of gradients to the next; 0 where all boxes have the same."""
    return given[0].numel() * given.element_size() if len(given) == len(plan.boxes) else 0


def pool_placed(maps: Tensor, levels: Sequence[int], by_bin: bool) -> tuple[Tensor, Tensor]:
    """Max pooled rows of whole maps, float32 ``[B, C, H, W]``, and where their maxima are.

    Returns:
        Rows as `pool` has them, and int16 ``[B, blocks, bins, 16]``: the cell of each bin's first maximum, as
        an unsigned number, channels 16 by 16. Maps may have 65,536 cells.
    """
    plan = whole_plan(maps, levels, "max")
    channels, lanes = maps.shape[1], WIDTH // 4
    out = new_rows(len(maps), channels * plan.bins, torch.float32)
    found = torch.empty(len(maps), -(-channels // lanes), plan.bins, lanes, dtype=torch.int16)
    shape = _shape(plan, channels, by_bin=by_bin)
    units = units_of(plan, channels, lanes, 0)
    places = [x.ctypes.data for x in (plan.maps, plan.boxes, units, plan.levels)]
    depth, targets, shaped = len(plan.levels), (out.data_ptr(), found.data_ptr()), shape.ctypes.data

    def call(memory: int, first: int, last: int) -> None:
        _kernels.placed_max_units(np.int32(0), *places, depth, *targets, shaped, memory, first, last)

    _share(len(units), plan, channels * 4, 4 * plan.bins * WIDTH + plan.table_bytes, call)
    return out, found


def pool_placed_backward(
    grad: Tensor, found: Tensor, maps: Tensor, levels: Sequence[int], by_bin: bool
) -> Tensor:
    """The gradient of `pool_placed` for the maps, of which only shape and strides matter."""
    result = new_like(maps, torch.float32)
    plan = whole_plan(result, levels, "max")
    given = _rows_of(grad, torch.float32)
    channels = maps.shape[1]
    several = max(1, _NEAR_BYTES // (plan.cells * WIDTH))
    # Large gradients are written past the caches, vector by vector where each starts at one's width.
    streamed = result.numel() * 4 >= LARGE and not (plan.maps[:, [0, 4, 5]] % WIDTH).any()
    shape = _shape(
        plan,
        channels,
        streamed=streamed,
        by_bin=by_bin,
        row_bytes=_row_bytes(given, plan),
        several=several,
    )
    units = units_of(plan, channels, WIDTH // 4, 0)
    places = [x.ctypes.data for x in (plan.maps, units, plan.levels)]
    depth, sources, shaped = len(plan.levels), (given.data_ptr(), found.data_ptr()), shape.ctypes.data

    def call(memory: int, first: int, last: int) -> None:
        _kernels.placed_gradient_units(np.float32(0), *places, depth, *sources, shaped, memory, first, last)

    _share(len(units), plan, channels * 4, several * plan.cells * WIDTH, call)
    return result


def _ranks(maps: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """The place of each value among all values, int32: what float64 needs to leave room for cell numbers."""
    several = list(maps)
    flat = torch.cat([m.reshape(-1) for m in several])
    ranks = np.unique(flat.numpy(), return_inverse=True)[1].reshape(-1).astype(np.int32)
    parts = torch.from_numpy(ranks).split([m.numel() for m in several])
    return [part.view(m.shape) for part, m in zip(parts, several, strict=True)]


def score(maps: Tensor, boxes: Boxes, weight: Tensor, levels: Sequence[int]) -> Tensor:
    """Products float32 ``[N, K]`` of max pooled rows and ``weight`` ``[K, C * bins]``."""
    order = near_order(boxes)
    plan = region_plan(maps, boxes[order], levels, "max")
    channels, classes = maps.shape[1], weight.shape[0]
    like, turn = _KEYS[maps.dtype]
    lanes = WIDTH // maps.element_size()
    weights = weight_blocks(weight, channels, levels, lanes)
    fours, blocks, parts = weights.shape[1], weights.shape[0], lanes // 16
    # Sums of groups of blocks are added in one order, so that threads do not change the result.
    groups = max(1, min(_GROUPS, blocks, channels * plan.bins // (16 * classes)))
    counts = np.diff(plan.starts)
    slots = np.concatenate([[0], np.cumsum(-(-counts // 4) * 4)])
    sums = torch.empty(groups, int(slots[-1]) // 4, fours, 4, 4)
    together = max(4, min(32, (16 << 10) // (plan.bins * parts * WIDTH) // 4 * 4))
    units = _score_units(plan, slots, groups, blocks, lanes)
    shape = _shape(plan, channels, together=together)
    places = [x.ctypes.data for x in (plan.maps, plan.boxes, units, plan.levels)]
    depth, heads, target, shaped = len(plan.levels), weights.data_ptr(), sums.data_ptr(), shape.ctypes.data
    half = maps.dtype == torch.float16

    def call(memory: int, start: int, stop: int) -> None:
        _kernels.score_units(
            like, half, *places, depth, heads, fours, target, shaped, turn, memory, start, stop
        )

    scratch = plan.bins * WIDTH * (1 + together * parts) + plan.table_bytes
    _share(len(units), plan, channels * maps.element_size(), scratch, call)
    # numpy, because threads that torch wakes spin for a while on the cores that ours need.
    total = sums.numpy().sum(0).transpose(0, 2, 1, 3).reshape(-1, fours * 4)[:, :classes]
    scores = np.empty((len(plan.boxes), classes), np.float32)
    for rows, count, slot in zip(np.split(order, plan.starts[1:-1]), counts, slots, strict=False):
        scores[rows] = total[slot : slot + count]
    return torch.from_numpy(scores)


def _score_units(plan: Plan, slots: Words, groups: int, blocks: int, lanes: int) -> Words:
    """Units ``[U, 6]`` of `sppnet.ops._kernels.score_units`: groups of blocks, and runs of boxes by fours."""
    counts = np.diff(plan.starts)
    least = 2 * torch.get_num_threads()
    runs = max(1, min(-(-least // (groups * len(counts))), int(counts.max(initial=0)) // 128))
    units: list[list[int]] = []
    for group in range(groups):
        head, tail = (blocks * group // groups) * lanes, (blocks * (group + 1) // groups) * lanes
        for one, count in enumerate(counts.tolist()):
            cuts = [min(count, -(-count * i // runs // 4) * 4) for i in range(runs + 1)]
            for a, b in pairwise(cuts):
                place = (int(slots[one]) + a + group * int(slots[-1])) // 4
                if b > a:
                    units.append(
                        [one, head, tail, int(plan.starts[one]) + a, int(plan.starts[one]) + b, place]
                    )
    return np.array(units, np.int64).reshape(-1, 6)


__all__ = [
    "Boxes",
    "near_order",
    "pool",
    "pool_backward",
    "pool_placed",
    "pool_placed_backward",
    "region_plan",
    "score",
    "whole_plan",
]

"""Pyramid pooling on the CPU: what the kernels need, prepared, and shared among threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sppnet.ops import _max_kernels, _mean_kernels, _score_kernels, _tasks
from sppnet.ops._memory import LARGE, new_like, new_rows
from sppnet.ops._plan import (
    WIDTH,
    Boxes,
    Plan,
    Words,
    map_table,
    near_order,
    region_plan,
    starts_of,
    units_of,
    weight_blocks,
    whole_plan,
)
from sppnet.ops._threads import run

_GROUPS = 8
_THREAD_BYTES = 512 << 10
"""Less to read and write than this is done before another thread is awake."""

_NEAR_BYTES = 256 << 10
"""What one thread keeps before it is written."""

_COARSE = (3, 2, 1)
"""The pyramid that has code of its own in scoring."""

_NANS = {
    torch.float16: (1 << 10) - 1,
    torch.bfloat16: (1 << 7) - 1,
    torch.float32: (1 << 23) - 1,
    torch.float64: (1 << 52) - 1,
}
"""For each type the number of its NaNs of either sign."""

_MAX = {
    torch.float16: _max_kernels.max_16,
    torch.bfloat16: _max_kernels.max_16,
    torch.float32: _max_kernels.max_32,
    torch.float64: _max_kernels.max_64,
}
_PAPER = {
    torch.float16: _max_kernels.paper_16,
    torch.bfloat16: _max_kernels.paper_16,
    torch.float32: _max_kernels.paper_32,
    torch.float64: _max_kernels.paper_64,
}
_MEAN = {torch.float32: _mean_kernels.mean_32, torch.float64: _mean_kernels.mean_64}
_MAX_GRADIENT = {
    torch.float16: _max_kernels.max_gradient_16,
    torch.bfloat16: _max_kernels.max_gradient_16,
    torch.float32: _max_kernels.max_gradient_32,
    torch.float64: _max_kernels.max_gradient_64,
}
_MEAN_GRADIENT = {
    torch.float32: _mean_kernels.mean_gradient_32,
    torch.float64: _mean_kernels.mean_gradient_64,
}
_SCORES = {
    torch.float16: _score_kernels.scores_half,
    torch.bfloat16: _score_kernels.scores_16,
    torch.float32: _score_kernels.scores_32,
}


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


def _run(
    entry: _tasks.Entry,
    plan: Plan,
    units: Words,
    shape: Words,
    scratch: int,
    size: int,
    words: Mapping[int, int],
) -> bool:
    """Have all units done, and tell whether they are: floats that are NaN can keep a kernel from it.

    Args:
        entry: of the kernel.
        plan: its tables.
        units: what there is to do.
        shape: further numbers of the call.
        scratch: bytes of memory for each thread.
        size: of a pooled value of all channels, in bytes.
        words: the words of the task that this kernel needs besides, by number.
    """
    work = size * (len(plan.boxes) * plan.bins + plan.all_cells)
    threads = min(torch.get_num_threads(), len(units), 1 + work // _THREAD_BYTES)
    memory = torch.empty(threads * scratch, dtype=torch.uint8, device="cpu")
    task = np.zeros(_tasks.WORDS, np.int64)
    task[_tasks.COUNT], task[_tasks.RUN] = len(units), max(1, len(units) // (8 * threads))
    task[_tasks.SCRATCH], task[_tasks.SCRATCH_BYTES] = memory.data_ptr(), scratch
    task[_tasks.MAPS], task[_tasks.BOXES], task[_tasks.LEVELS] = plan.addresses
    task[_tasks.DEPTH], task[_tasks.UNITS] = len(plan.levels), units.ctypes.data
    task[_tasks.SHAPE] = shape.ctypes.data
    for number, value in words.items():
        task[number] = value
    run(entry.address, task.ctypes.data, threads)
    return not task[_tasks.ODD]


def pool(maps: Sequence[Tensor] | Tensor, plan: Plan, mode: str, by_bin: bool) -> Tensor:
    """Rows of the boxes of ``plan``, in the type of the maps."""
    first = maps[0]
    channels, dtype = first.shape[0], first.dtype
    if mode == "mean" and dtype in (torch.float16, torch.bfloat16):
        return _pool_widened(maps, plan, by_bin).to(dtype)
    out = new_rows(len(plan.boxes), channels * plan.bins, dtype)
    lanes = WIDTH // first.element_size()
    # Large outputs are written past the caches, which they would only flush.
    large, aligned = out.numel() * out.element_size() >= LARGE, out.data_ptr() % WIDTH == 0
    streamed = large and aligned and channels % lanes == 0
    shape = _shape(plan, channels, streamed=streamed, by_bin=by_bin)
    units = units_of(plan, channels, lanes, 2 * torch.get_num_threads())
    scratch = 3 * plan.bins * WIDTH + plan.table_bytes
    size = channels * first.element_size()
    words = {_tasks.ROWS: out.data_ptr(), _tasks.TURN: _NANS[dtype]}
    own = plan.paper and aligned
    if own and _run(_PAPER[dtype], plan, units, shape, scratch, size, words):
        return out
    entry = _MAX[dtype] if mode == "max" else _MEAN[dtype]
    _run(entry, plan, units, shape, scratch, size, words)
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
    shape = _shape(plan, channels, by_bin=by_bin, row_bytes=_row_bytes(given, plan))
    units = units_of(plan, channels, WIDTH // given.element_size(), 0)
    scratch, size = plan.cells * WIDTH + WIDTH, channels * given.element_size()
    entry = _MEAN_GRADIENT[given.dtype]
    words = {_tasks.ROWS: given.data_ptr()}
    _run(entry, replace(plan, maps=targets), units, shape, scratch, size, words)


def _max_backward(
    given: Tensor, maps: Sequence[Tensor] | Tensor, plan: Plan, targets: Words, by_bin: bool
) -> None:
    channels, dtype = maps[0].shape[0], maps[0].dtype
    entry, turn, item = _MAX_GRADIENT[dtype], _NANS[dtype], maps[0].element_size()
    if dtype == torch.float64:
        plan, turn, item = replace(plan, maps=map_table(ranks := _ranks(maps))), 0, ranks[0].element_size()
    elif item == 2 and plan.cells >= 1 << 16:
        entry = _max_kernels.max_gradient_16_large
    shape = _shape(plan, channels, by_bin=by_bin, row_bytes=_row_bytes(given, plan))
    units = units_of(plan, channels, WIDTH // item, 0)
    blocks = 1 + given.element_size() // item
    scratch = plan.bins * WIDTH + plan.table_bytes + blocks * plan.cells * WIDTH
    words = {_tasks.ROWS: given.data_ptr(), _tasks.GRADIENTS: targets.ctypes.data, _tasks.TURN: turn}
    _run(entry, plan, units, shape, scratch, channels * given.element_size(), words)


def _rows_of(grad: Tensor, dtype: torch.dtype) -> Tensor:
    """Contiguous rows of gradients, or one where all are the same, as a sum gives them back."""
    given = grad[:1] if grad.stride(0) == 0 else grad
    return (given if given.dtype == dtype else given.to(dtype)).contiguous()


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
    found = torch.empty(len(maps), -(-channels // lanes), plan.bins, lanes, dtype=torch.int16, device="cpu")
    several = max(1, _NEAR_BYTES // (plan.cells * WIDTH))
    shape = _shape(plan, channels, by_bin=by_bin, several=several)
    units = units_of(plan, channels, lanes, 0)
    words = {
        _tasks.ROWS: out.data_ptr(),
        _tasks.PLACES: found.data_ptr(),
        _tasks.TURN: _NANS[maps.dtype],
        _tasks.LINES: _ahead(maps, plan, several),
    }
    scratch = (4 * plan.bins + several * plan.cells) * WIDTH
    for entry in (_max_kernels.placed_max, _max_kernels.placed_max_keys):
        if _run(entry, plan, units, shape, scratch, channels * 4, words):
            break
    return out, found


def _ahead(maps: Tensor, plan: Plan, several: int) -> int:
    """Lines of memory to ask for at each bin, so that a unit's end finds the next one's in the caches.

    None where the next one does not lie behind it, or has no room beside it.
    """
    channels_last = maps.is_contiguous(memory_format=torch.channels_last)
    together = channels_last and maps.shape[1] * 4 <= several * WIDTH
    if plan.cells * WIDTH > _NEAR_BYTES or not (together or maps.is_contiguous()):
        return 0
    numbers = plan.levels.tolist()
    return -(-plan.cells // sum(n * n for i, (n, parent, _, _) in enumerate(numbers) if parent == i))


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
    starts = [result.data_ptr(), *(4 * result.stride(axis) for axis in (0, 2, 3))]
    streamed = result.numel() * 4 >= LARGE and not any(start % WIDTH for start in starts)
    shape = _shape(
        plan,
        channels,
        streamed=streamed,
        by_bin=by_bin,
        row_bytes=_row_bytes(given, plan),
        several=several,
    )
    units = units_of(plan, channels, WIDTH // 4, 0)
    words = {_tasks.ROWS: given.data_ptr(), _tasks.PLACES: found.data_ptr()}
    scratch = several * plan.cells * WIDTH
    _run(_max_kernels.placed_gradient, plan, units, shape, scratch, channels * 4, words)
    return result


def _ranks(maps: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """The place of each value among all values, int32: what float64 needs to leave room for cell numbers."""
    several = list(maps)
    flat = torch.cat([m.reshape(-1) for m in several])
    ranks = np.unique(flat.numpy(), return_inverse=True)[1].reshape(-1).astype(np.int32)
    parts = torch.from_numpy(ranks).split([m.numel() for m in several])
    return [part.view(m.shape) for part, m in zip(parts, several, strict=True)]


def score(maps: Tensor, boxes: Boxes, weight: Tensor, levels: Sequence[int]) -> Tensor | None:
    """Products float32 ``[N, K]`` of max pooled rows and ``weight`` ``[K, C * bins]``.

    None where a float is NaN.
    """
    order = near_order(boxes)
    plan = region_plan(maps, boxes[order], levels, "max")
    channels, classes = maps.shape[1], weight.shape[0]
    lanes = WIDTH // maps.element_size()
    weights = weight_blocks(weight, channels, levels, lanes)
    fours, blocks, parts = weights.shape[1], weights.shape[0], lanes // 16
    # Sums of groups of blocks are added in one order, so that threads do not change the result.
    groups = max(1, min(_GROUPS, blocks, channels * plan.bins // (16 * classes)))
    counts, starts = np.array(plan.counts), starts_of(plan.counts)
    slots = np.concatenate([[0], np.cumsum(-(-counts // 4) * 4)])
    sums = torch.empty(groups, int(slots[-1]) // 4, fours, 4, 4, dtype=torch.float32, device="cpu")
    together = max(4, min(32, (16 << 10) // (plan.bins * parts * WIDTH) // 4 * 4))
    units = _score_units(plan, slots, groups, blocks, lanes)
    shape = _shape(plan, channels, together=together)
    words = {
        _tasks.WEIGHTS: weights.data_ptr(),
        _tasks.FOURS: fours,
        _tasks.ROWS: sums.data_ptr(),
        _tasks.TURN: _NANS[maps.dtype],
        _tasks.COARSE: plan.across == 0 and tuple(levels) == _COARSE,
    }
    scratch = plan.bins * WIDTH * (1 + together * parts) + plan.table_bytes
    size = channels * maps.element_size()
    if not _run(_SCORES[maps.dtype], plan, units, shape, scratch, size, words):
        return None
    # numpy, because threads that torch wakes spin for a while on the cores that ours need.
    total = sums.numpy().sum(0).transpose(0, 2, 1, 3).reshape(-1, fours * 4)[:, :classes]
    scores = np.empty((len(plan.boxes), classes), np.float32)
    for rows, count, slot in zip(np.split(order, starts[1:-1]), counts, slots, strict=False):
        scores[rows] = total[slot : slot + count]
    return torch.from_numpy(scores)


def _score_units(plan: Plan, slots: Words, groups: int, blocks: int, lanes: int) -> Words:
    """The units ``[U, 6]`` of scoring: groups of blocks, and runs of boxes by fours."""
    starts = starts_of(plan.counts).tolist()
    least = 2 * torch.get_num_threads()
    runs = max(1, min(-(-least // (groups * len(plan.counts))), max(plan.counts) // 128))
    units: list[list[int]] = []
    for group in range(groups):
        head, tail = (blocks * group // groups) * lanes, (blocks * (group + 1) // groups) * lanes
        for one, count in enumerate(plan.counts):
            cuts = [min(count, -(-count * i // runs // 4) * 4) for i in range(runs + 1)]
            for a, b in pairwise(cuts):
                place = (int(slots[one]) + a + group * int(slots[-1])) // 4
                if b > a:
                    units.append([one, head, tail, starts[one] + a, starts[one] + b, place])
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

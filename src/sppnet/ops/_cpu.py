"""Pyramid pooling on the CPU: compiled loops over channels-last rows, on threads of our own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numba
import numpy as np
import torch
from torch import Tensor

from sppnet.ops.bins import count_bins


def _compile(function: Callable[..., None]) -> Callable[..., None]:
    """Machine code, kept on disk where numba finds a folder to write to."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(function)


class _Pool:
    """Worker threads, made on first use and again after a fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.executor = None

    def get(self) -> ThreadPoolExecutor:
        with self.lock:
            if self.executor is None:
                self.executor = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sppnet")
            return self.executor


_pool = _Pool()


def _share(work: Callable[[int, int], None], count: int) -> None:
    """Call ``work(start, stop)`` over ``range(count)``, split among ``torch.get_num_threads()`` threads."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    cuts = [count * i // threads for i in range(threads + 1)]
    others: list[Future[None]] = [_pool.get().submit(work, a, b) for a, b in zip(cuts[1:], cuts[2:], strict=False)]
    try:
        work(cuts[0], cuts[1])
    finally:
        for other in others:
            other.result()


@_compile
def _pool_kernel(rows, boxes, levels, largest, out, start, stop):  # type: ignore[no-untyped-def]
    channels = rows.shape[1]
    best = np.empty(channels, rows.dtype)
    for r in range(start, stop):
        base, width = boxes[r, 0], boxes[r, 1]
        x0, y0 = boxes[r, 2], boxes[r, 3]
        w, h = boxes[r, 4] - x0, boxes[r, 5] - y0
        at = 0
        for n in levels:
            for i in range(n):
                top, bottom = y0 + i * h // n, y0 - (-(i + 1) * h // n)
                for j in range(n):
                    left, right = x0 + j * w // n, x0 - (-(j + 1) * w // n)
                    cell = base + top * width + left
                    for c in range(channels):
                        best[c] = rows[cell, c]
                    for y in range(top, bottom):
                        for x in range(left, right):
                            cell = base + y * width + x
                            if y == top and x == left:
                                continue
                            for c in range(channels):
                                value = rows[cell, c]
                                if largest:
                                    best[c] = value if value > best[c] or value != value else best[c]
                                else:
                                    best[c] += value
                    scale = 1.0 if largest else 1.0 / ((bottom - top) * (right - left))
                    for c in range(channels):
                        out[r, at + c * n * n + i * n + j] = best[c] * scale
            at += n * n * channels


@_compile
def _gradient_kernel(rows, boxes, levels, largest, grad, out, start, stop):  # type: ignore[no-untyped-def]
    channels = rows.shape[1]
    for r in range(boxes.shape[0]):
        base, width = boxes[r, 0], boxes[r, 1]
        x0, y0 = boxes[r, 2], boxes[r, 3]
        w, h = boxes[r, 4] - x0, boxes[r, 5] - y0
        at = 0
        for n in levels:
            for i in range(n):
                top, bottom = y0 + i * h // n, y0 - (-(i + 1) * h // n)
                for j in range(n):
                    left, right = x0 + j * w // n, x0 - (-(j + 1) * w // n)
                    share = 1.0 / ((bottom - top) * (right - left))
                    for c in range(start, stop):
                        given = grad[r, at + c * n * n + i * n + j]
                        first = base + top * width + left
                        best = rows[first, c]
                        for y in range(top, bottom):
                            for x in range(left, right):
                                cell = base + y * width + x
                                if not largest:
                                    out[cell, c] += given * share
                                elif rows[cell, c] > best or rows[cell, c] != rows[cell, c]:
                                    best = rows[cell, c]
                                    first = cell
                        if largest:
                            out[first, c] += given
            at += n * n * channels


def _as_rows(maps: Sequence[Tensor]) -> np.ndarray:
    kept = torch.float64 if maps[0].dtype == torch.float64 else torch.float32
    rows = [m.permute(1, 2, 0).reshape(-1, m.shape[0]) for m in maps]
    return torch.cat(rows).to(kept).numpy()


def _as_boxes(maps: Sequence[Tensor], owners: Tensor, boxes: Tensor) -> np.ndarray:
    cells = torch.tensor([0, *(m.shape[1] * m.shape[2] for m in maps)]).cumsum(0)
    widths = torch.tensor([m.shape[2] for m in maps])
    return torch.cat([cells[owners, None], widths[owners, None], boxes], 1).numpy()


def pool(maps: Sequence[Tensor], owners: Tensor, boxes: Tensor, levels: Sequence[int], mode: str) -> Tensor:
    """Rows ``[N, C * bins]`` of ``boxes`` int64 ``[N, 4]``, box i on ``maps[owners[i]]``."""
    first = maps[0]
    rows = _as_rows(maps)
    out = torch.empty(len(boxes), first.shape[0] * count_bins(levels), dtype=torch.from_numpy(rows[:0]).dtype)
    target, places, sides = out.numpy(), _as_boxes(maps, owners, boxes), np.asarray(levels, np.int64)
    _share(lambda a, b: _pool_kernel(rows, places, sides, mode == "max", target, a, b), len(boxes))
    return out.to(first.dtype)


def pool_backward(
    grad: Tensor, maps: Sequence[Tensor], owners: Tensor, boxes: Tensor, levels: Sequence[int], mode: str
) -> list[Tensor]:
    """The gradient of `pool` for each map."""
    rows = _as_rows(maps)
    given = grad.to(torch.from_numpy(rows[:0]).dtype).contiguous().numpy()
    total = np.zeros_like(rows)
    places, sides = _as_boxes(maps, owners, boxes), np.asarray(levels, np.int64)
    work = lambda a, b: _gradient_kernel(rows, places, sides, mode == "max", given, total, a, b)  # noqa: E731
    _share(work, rows.shape[1])
    parts = torch.from_numpy(total).to(maps[0].dtype).split([m.shape[1] * m.shape[2] for m in maps])
    return [p.reshape(*m.shape[1:], -1).permute(2, 0, 1) for p, m in zip(parts, maps, strict=True)]

"""Products of many long rows with a few vectors, at the speed at which memory gives the rows.

A linear model of a few classes meets its rows as a tall, skinny product. Matrix multiplication is made for
square ones; here the rows are read once a call, even where they are used twice.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.ops import _product_kernels as kernels
from sppnet.ops import _tasks
from sppnet.ops._threads import run

MOST = 32
"""Vectors up to which this is faster than a matrix product."""
_UNITS = 16
"""Stretches of rows, at most, whose totals are kept apart."""
_THREAD_NUMBERS = 1 << 17
"""Fewer numbers than this are read before another thread is awake."""


def suits(rows: Tensor, count: int) -> bool:
    """Whether `row_products` and the others take these rows with ``count`` vectors."""
    able = rows.device.type == "cpu" and rows.dtype == torch.float32 and rows.is_contiguous()
    return able and count <= MOST and rows.numel() > 0


def row_products(rows: Tensor, vectors: Tensor) -> Tensor:
    """``vectors @ rows.T``.

    Args:
        rows: float32 ``[N, D]``, contiguous, on the CPU.
        vectors: ``[K, D]``, K at most 32.

    Returns:
        float32 ``[K, N]``.
    """
    index = np.arange(len(rows))
    fours = _by_fours(vectors)
    out = torch.empty(-(-len(rows) // 4), fours.shape[0], 4, 4, dtype=torch.float32, device="cpu")
    _run(rows, index, fours, None, None, out, None)
    return out.permute(1, 3, 0, 2).reshape(-1, out.shape[0] * 4)[: len(vectors), : len(rows)].contiguous()


def row_sums(rows: Tensor, factors: Tensor) -> Tensor:
    """``factors @ rows``; rows whose factors are all zero are not read.

    Args:
        rows: float32 ``[N, D]``, contiguous, on the CPU.
        factors: ``[K, N]``, K at most 32.

    Returns:
        float32 ``[K, D]``, the same for any number of threads.
    """
    return _sums(rows, None, factors, None)[0]


def curved_products(rows: Tensor, vectors: Tensor, offsets: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """With ``m = factors * (vectors @ rows.T + offsets[:, None])``, ``m @ rows`` and ``m.sum(1)``.

    One pass over the rows that have a factor other than zero.

    Args:
        rows: float32 ``[N, D]``, contiguous, on the CPU.
        vectors: ``[K, D]``, K at most 32.
        offsets: ``[K]``.
        factors: ``[K, N]``.

    Returns:
        float32 ``[K, D]`` and ``[K]``, the same for any number of threads.
    """
    return _sums(rows, vectors, factors, offsets)


def _sums(
    rows: Tensor, vectors: Tensor | None, factors: Tensor, offsets: Tensor | None
) -> tuple[Tensor, Tensor]:
    used = factors.any(0).nonzero()[:, 0]
    count, length = len(factors), rows.shape[1]
    some = factors[:, used]
    given = _rows_by_fours(some)
    units = min(_UNITS, max(1, len(given)))
    totals = torch.zeros(units, given.shape[1], -(-length // 16), 4, 16, dtype=torch.float32, device="cpu")
    multiples = given
    if len(used):
        added = None if offsets is None else _rows_by_fours(some * offsets[:, None])
        fours = None if vectors is None else _by_fours(vectors)
        multiples = given if vectors is None else torch.empty_like(given)
        _run(rows, used.numpy(), fours, given, added, multiples, totals)
    result = totals.sum(0).permute(0, 2, 1, 3).flatten(0, 1).flatten(1)
    return result[:count, :length].contiguous(), multiples.sum((0, 2)).flatten()[:count]


def _rows_by_fours(factors: Tensor) -> Tensor:
    """``[K, N]`` as float32 ``[N / 4, K / 4, 4 rows, 4]``, filled up with zeros."""
    count, length = factors.shape
    padded = torch.zeros(-(-count // 4) * 4, -(-length // 4) * 4, dtype=torch.float32, device="cpu")
    padded[:count, :length] = factors
    return padded.view(len(padded) // 4, 4, -1, 4).permute(2, 0, 3, 1).contiguous()


def _by_fours(vectors: Tensor) -> Tensor:
    """``[K, D]`` as float32 ``[K / 4, D / 16, 4, 16]``, filled up with zeros."""
    count, length = vectors.shape
    padded = torch.zeros(-(-count // 4) * 4, -(-length // 16) * 16, dtype=torch.float32, device="cpu")
    padded[:count, :length] = vectors
    return padded.view(-1, 4, padded.shape[1] // 16, 16).permute(0, 2, 1, 3).contiguous()


def _run(
    rows: Tensor,
    index: NDArray[np.int64],
    vectors: Tensor | None,
    factors: Tensor | None,
    offsets: Tensor | None,
    multiples: Tensor,
    totals: Tensor | None,
) -> None:
    task = np.zeros(_tasks.WORDS, np.int64)
    units = min(_UNITS, len(multiples)) if totals is None else len(totals)
    task[_tasks.COUNT], task[_tasks.RUN] = units, 1
    task[kernels.ROWS], task[kernels.INDEX] = rows.data_ptr(), index.ctypes.data
    task[kernels.MULTIPLES] = multiples.data_ptr()
    numbers = (kernels.VECTORS, kernels.FACTORS, kernels.OFFSETS, kernels.TOTALS)
    for number, tensor in zip(numbers, (vectors, factors, offsets, totals), strict=True):
        task[number] = 0 if tensor is None else tensor.data_ptr()
    task[kernels.USED], task[kernels.LENGTH] = len(index), rows.shape[1]
    task[kernels.FOURS], task[kernels.EACH] = multiples.shape[1], -(-len(multiples) // units) * 4
    threads = min(torch.get_num_threads(), units, 1 + len(index) * rows.shape[1] // _THREAD_NUMBERS)
    run(kernels.products.address, task.ctypes.data, threads)

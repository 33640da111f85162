"""Products for linear models: many long feature vectors (rows) with a few weight vectors.

These products are limited by the bandwidth of reading the rows. The functions read them once per call, even
if they are used twice; general matrix multiplication is optimised for square matrices.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.ops.cpu import args
from sppnet.ops.cpu.kernels.linear import products
from sppnet.ops.cpu.threads import run

MOST = 32
"""Maximum number of vectors for which these functions are faster than a matrix product."""
_UNITS = 16
"""Maximum number of runs of rows with separate totals."""
_THREAD_NUMBERS = 1 << 17
"""Minimum numbers to read per thread; fewer take less time than waking a thread."""


def suits(rows: Tensor, count: int) -> bool:
    """Return whether the functions of this module support rows ``[N, D]`` with ``count`` vectors.

    Examples:
        >>> suits(torch.ones(6, 20), 3), suits(torch.ones(6, 20).double(), 3)
        (True, False)
    """
    able = rows.device.type == "cpu" and rows.dtype == torch.float32 and rows.is_contiguous()
    return able and count <= MOST and rows.numel() > 0


def row_products(rows: Tensor, vectors: Tensor) -> Tensor:
    """Compute ``vectors @ rows.T``.

    Args:
        rows: float32 ``[N, D]``, contiguous, on the CPU.
        vectors: ``[K, D]``, K at most 32.

    Returns:
        float32 ``[K, N]``.

    Examples:
        >>> row_products(torch.ones(3, 4), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        tensor([[10., 10., 10.]])
    """
    index = np.arange(len(rows))
    fours = _by_fours(vectors)
    out = torch.empty(-(-len(rows) // 4), fours.shape[0], 4, 4, dtype=torch.float32, device="cpu")
    _run(rows, index, fours, None, None, out, None)
    return out.permute(1, 3, 0, 2).reshape(-1, out.shape[0] * 4)[: len(vectors), : len(rows)].contiguous()


def row_sums(rows: Tensor, factors: Tensor) -> Tensor:
    """Compute ``factors @ rows``; rows with zero factors only are not read.

    Args:
        rows: float32 ``[N, D]``, contiguous, on the CPU.
        factors: ``[K, N]``, K at most 32.

    Returns:
        float32 ``[K, D]``, the same for any number of threads.

    Examples:
        >>> row_sums(torch.ones(3, 4), torch.tensor([[1.0, 0.0, 2.0]]))
        tensor([[3., 3., 3., 3.]])
    """
    return _sums(rows, None, factors, None)[0]


def curved_products(rows: Tensor, vectors: Tensor, offsets: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``m @ rows`` and ``m.sum(1)``, where ``m = factors * (vectors @ rows.T + offsets[:, None])``.

    The rows with a nonzero factor are read once.

    Args:
        rows: float32 ``[N, D]``, contiguous, on the CPU.
        vectors: ``[K, D]``, K at most 32.
        offsets: ``[K]``.
        factors: ``[K, N]``.

    Returns:
        float32 ``[K, D]`` and ``[K]``, the same for any number of threads.

    Examples:
        >>> rows, vectors = torch.ones(2, 2), torch.tensor([[1.0, 2.0]])
        >>> curved_products(rows, vectors, torch.tensor([1.0]), torch.tensor([[1.0, 0.0]]))
        (tensor([[4., 4.]]), tensor([4.]))
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
    """Reorder ``[K, N]`` to float32 ``[N / 4, K / 4, 4 rows, 4]``, padded with zeros."""
    count, length = factors.shape
    padded = torch.zeros(-(-count // 4) * 4, -(-length // 4) * 4, dtype=torch.float32, device="cpu")
    padded[:count, :length] = factors
    return padded.view(len(padded) // 4, 4, -1, 4).permute(2, 0, 3, 1).contiguous()


def _by_fours(vectors: Tensor) -> Tensor:
    """Reorder ``[K, D]`` to float32 ``[K / 4, D / 16, 4, 16]``, padded with zeros."""
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
    struct = np.zeros(args.LINEAR_FIELDS, np.int64)
    units = min(_UNITS, len(multiples)) if totals is None else len(totals)
    struct[args.UNIT_COUNT], struct[args.UNIT_RUN] = units, 1
    struct[args.LINEAR_ROWS], struct[args.LINEAR_INDEX] = rows.data_ptr(), index.ctypes.data
    struct[args.LINEAR_MULTIPLES] = multiples.data_ptr()
    fields = (args.LINEAR_VECTORS, args.LINEAR_FACTORS, args.LINEAR_OFFSETS, args.LINEAR_TOTALS)
    for field, tensor in zip(fields, (vectors, factors, offsets, totals), strict=True):
        struct[field] = 0 if tensor is None else tensor.data_ptr()
    struct[args.LINEAR_USED], struct[args.LINEAR_LENGTH] = len(index), rows.shape[1]
    struct[args.LINEAR_FOURS], struct[args.LINEAR_EACH] = multiples.shape[1], -(-len(multiples) // units) * 4
    threads = min(torch.get_num_threads(), units, 1 + len(index) * rows.shape[1] // _THREAD_NUMBERS)
    run(products.address, struct.ctypes.data, threads)

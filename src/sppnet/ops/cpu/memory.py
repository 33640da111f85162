"""A pool of memory for large outputs.

The system maps every page of a new output with a page fault and fills it with zeros, which takes as long as
pooling itself. So the memory of a large output is reused for the next one. All but the latest is marked as
free (``MADV_FREE``): under memory pressure the system reclaims it.
"""

from __future__ import annotations

import mmap
import sys
import threading
import weakref
from collections import deque
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

LARGE = 8 << 20
"""Minimum size in bytes of outputs from this pool; the C library reuses memory of smaller ones."""
_KEPT = 256 << 20
_PAGE = 2 << 20
_BY_PAGES = sys.platform == "linux" and hasattr(mmap, "MADV_FREE") and hasattr(mmap, "MADV_HUGEPAGE")


class _Reserve:
    """Memory that waits for its next use, at most ``_KEPT`` bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Memory is returned by finalizers, which may run anywhere, even while the lock is held: appending to
        # and popping from a deque need no lock. Memory in neither deque is in use.
        self._latest: deque[mmap.mmap] = deque()
        self._waiting: deque[mmap.mmap] = deque()

    def lend(self, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """``size`` bytes of arbitrary content; they return to the pool when the array is collected."""
        wanted = -(-size // _PAGE) * _PAGE
        memory = self._find(wanted)
        if memory is None:
            memory = mmap.mmap(-1, wanted, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE)
        array = np.frombuffer(memory, np.uint8, size)
        weakref.finalize(array, self._take_back, memory).atexit = False
        return array

    def kept(self) -> int:
        """Number of bytes that wait."""
        return sum(len(m) for m in (*tuple(self._latest), *tuple(self._waiting)))

    def _find(self, wanted: int) -> mmap.mmap | None:
        with self._lock:
            for some in (self._latest, self._waiting):
                for _ in range(len(some)):
                    try:
                        memory = some.popleft()
                    except IndexError:  # a finalizer has just taken it
                        break
                    if wanted <= len(memory) <= 2 * wanted:
                        return memory
                    some.append(memory)
        return None

    def _take_back(self, memory: mmap.mmap) -> None:
        if len(memory) > _KEPT:
            return
        self._latest.append(memory)
        # Marking takes a tenth of the time of an output; the next output needs the latest memory at once.
        while len(self._latest) > 1:
            try:
                older = self._latest.popleft()
            except IndexError:  # lent meanwhile
                break
            older.madvise(mmap.MADV_FREE)
            self._waiting.append(older)
        while self.kept() > _KEPT and self._waiting:
            with suppress(IndexError):
                self._waiting.popleft()


_reserve = _Reserve()


def new_rows(count: int, length: int, dtype: torch.dtype) -> Tensor:
    """A tensor ``[count, length]`` of arbitrary content, on memory that may have been used before."""
    size = count * length * dtype.itemsize
    if size < LARGE or not _BY_PAGES:
        return torch.empty(count, length, dtype=dtype, device="cpu")
    return torch.from_numpy(_reserve.lend(size)).view(dtype).view(count, length)


def new_like(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """As `torch.empty_like` with another type, on memory that may have been used before."""
    if tensor.numel() * dtype.itemsize < LARGE:
        return torch.empty_like(tensor, dtype=dtype)
    strides = tensor.stride()
    if not (tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)):
        strides = torch.empty_like(tensor, dtype=dtype, device="meta").stride()
    return new_rows(1, tensor.numel(), dtype)[0].as_strided(tensor.shape, strides)

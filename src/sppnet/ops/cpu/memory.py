"""A pool of memory for large outputs.

The system maps every page of a new output with a page fault and fills it with zeros, which takes as long as
pooling. Therefore the memory of a large output is reused for the next one. All but the latest is marked as
free (``MADV_FREE``), so that the system can reclaim it.
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
    """Unused memory of at most ``_KEPT`` bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Finalizers return memory and may run at any time, even while the lock is held, but append and pop of
        # a deque require no lock. Memory in neither deque is in use.
        self._latest: deque[mmap.mmap] = deque()
        self._waiting: deque[mmap.mmap] = deque()

    def lend(self, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Return ``size`` bytes of arbitrary content; they are reused when the array is collected."""
        pages = -(-size // _PAGE) * _PAGE
        memory = self._find(pages)
        if memory is None:
            memory = mmap.mmap(-1, pages, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE)
        array = np.frombuffer(memory, np.uint8, size)
        weakref.finalize(array, self._take_back, memory).atexit = False
        return array

    def kept(self) -> int:
        """Return the number of unused bytes."""
        return sum(len(m) for m in (*tuple(self._latest), *tuple(self._waiting)))

    def _find(self, size: int) -> mmap.mmap | None:
        with self._lock:
            for some in (self._latest, self._waiting):
                for _ in range(len(some)):
                    try:
                        memory = some.popleft()
                    except IndexError:  # removed by a finalizer
                        break
                    if size <= len(memory) <= 2 * size:
                        return memory
                    some.append(memory)
        return None

    def _take_back(self, memory: mmap.mmap) -> None:
        if len(memory) > _KEPT:
            return
        self._latest.append(memory)
        # The latest memory is not marked, because the next output uses it; marking takes a tenth of its time.
        while len(self._latest) > 1:
            try:
                older = self._latest.popleft()
            except IndexError:  # in use again
                break
            older.madvise(mmap.MADV_FREE)
            self._waiting.append(older)
        while self.kept() > _KEPT and self._waiting:
            with suppress(IndexError):
                self._waiting.popleft()


_reserve = _Reserve()


def new_rows(count: int, length: int, dtype: torch.dtype) -> Tensor:
    """Allocate a tensor ``[count, length]`` of arbitrary content, possibly in reused memory."""
    size = count * length * dtype.itemsize
    if size < LARGE or not _BY_PAGES:
        return torch.empty(count, length, dtype=dtype, device="cpu")
    return torch.from_numpy(_reserve.lend(size)).view(dtype).view(count, length)


def new_like(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Allocate a tensor as `torch.empty_like` of another dtype, possibly in reused memory."""
    if tensor.numel() * dtype.itemsize < LARGE:
        return torch.empty_like(tensor, dtype=dtype)
    strides = tensor.stride()
    if not (tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)):
        strides = torch.empty_like(tensor, dtype=dtype, device="meta").stride()
    return new_rows(1, tensor.numel(), dtype)[0].as_strided(tensor.shape, strides)

"""Threads for compiled loops: those of torch's OpenMP library if available.

After an operation, the threads of torch spin for some milliseconds on their cores, and other threads would
have to wait. Therefore kernels run on the same threads if torch uses GNU OpenMP. Otherwise, and in a forked
child, which has no such threads, an executor is used.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

_Body = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class _Workers:
    """An executor that is created on first use, and again in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self.forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._executor = None
        self.forked = True

    def submit(self, call: Callable[[], object]) -> Future[object]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sppnet")
            return self._executor.submit(call)


_workers = _Workers()


@cache
def _parallel() -> Callable[..., None] | None:
    """Return the function that starts a parallel region in the OpenMP library of torch, or None.

    Its arguments are ``(address, data, threads, flags)``. It returns when the function at ``address`` has
    returned in all threads, and releases the lock of the interpreter meanwhile.
    """
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:
            continue  # present, but not loaded by this process
        region: Any = library.GOMP_parallel
        region.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        region.restype = None
        return region
    return None


def run(entry: int, struct: int, threads: int) -> None:
    """Call the machine code at ``entry`` with an args struct in several threads, including the current one.

    The number of calls is 1 to ``threads``; any number of calls must complete the work. Returns after the
    last call.
    """
    if threads <= 1:
        _Body(entry)(struct)
        return
    region = None if _workers.forked else _parallel()
    if region is not None:
        region(entry, struct, threads, 0)
        return
    others = [_workers.submit(partial(_Body(entry), struct)) for _ in range(threads - 1)]
    try:
        _Body(entry)(struct)
    finally:
        for other in others:
            # Calls that have not started have no work left.
            if not other.cancel():
                other.result()

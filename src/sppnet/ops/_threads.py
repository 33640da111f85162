"""Threads for compiled loops that release the interpreter: torch's own where they can be had.

After an operation torch's threads stay awake for some milliseconds, waiting for the next one on the cores
that they had. Other threads would wait behind them. So where torch computes with GNU OpenMP, these loops run
on its very threads: they are awake already, and ready for torch again the moment we are done. Elsewhere,
and in a forked child, where no thread survives, an executor of our own takes their place.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

Job = Callable[[Iterator[tuple[int, int]]], None]

_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Workers:
    """An executor made when it is first needed, and again in a forked child."""

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

    def submit(self, job: Job, runs: Iterator[tuple[int, int]]) -> Future[None]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sppnet")
            return self._executor.submit(job, runs)


_workers = _Workers()


@cache
def _parallel() -> Callable[..., None] | None:
    """The entry of a parallel region in the OpenMP library that torch has loaded, None for another kind.

    ``(body, data, threads, flags)``; it returns when all threads have left ``body``, and lets other threads
    of the interpreter run meanwhile.
    """
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:
            continue  # it lies there, but this process computes with another one
        region: Any = library.GOMP_parallel
        region.argtypes = (_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        region.restype = None
        return region
    return None


class _Runs:
    """Runs of units, each handed to whichever thread asks next."""

    def __init__(self, count: int, length: int) -> None:
        self._lock = threading.Lock()
        self._next, self._count, self._length = 0, count, length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self

    def __next__(self) -> tuple[int, int]:
        with self._lock:
            start = self._next
            self._next = stop = min(start + self._length, self._count)
        if start == stop:
            raise StopIteration
        return start, stop


def share(count: int, job: Job, most: int) -> None:
    """Call ``job`` on several threads, the caller's among them, until ``count`` units are done.

    There are `torch.get_num_threads` of them, or fewer where there are fewer units, and at most ``most``.

    ``job`` is called once a thread and takes runs of units, ``(first, last)``, from the iterator that it is
    given. What a unit computes must not depend on the run that it came in.
    """
    threads = min(torch.get_num_threads(), count, most)
    if threads <= 1:
        job(iter([(0, count)] if count else []))
        return
    runs = _Runs(count, max(1, count // (8 * threads)))
    region = None if _workers.forked else _parallel()
    if region is None:
        _share_among_workers(job, runs, threads)
        return
    failures: list[BaseException] = []

    def body(_: object) -> None:
        # Nothing may leave a function that C called; what went wrong is raised by the caller's thread.
        try:
            job(runs)
        except BaseException as error:
            failures.append(error)

    region(_Body(body), None, threads, 0)
    if failures:
        raise failures[0]


def _share_among_workers(job: Job, runs: _Runs, threads: int) -> None:
    others = [_workers.submit(job, runs) for _ in range(threads - 1)]
    try:
        job(runs)
    finally:
        for other in others:
            # A thread that never began has nothing left to do: the runs are spent.
            if not other.cancel():
                other.result()

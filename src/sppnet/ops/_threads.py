"""Threads of our own for compiled loops that release the interpreter."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

Job = Callable[[Iterator[tuple[int, int]]], None]


class _Workers:
    """An executor made when it is first needed, and again in a forked child, where no thread survives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._executor = None

    def submit(self, job: Job, runs: Iterator[tuple[int, int]]) -> Future[None]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sppnet")
            return self._executor.submit(job, runs)


_workers = _Workers()


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
    others = [_workers.submit(job, runs) for _ in range(threads - 1)]
    try:
        job(runs)
    finally:
        for other in others:
            # A thread that never began has nothing left to do: the runs are spent.
            if not other.cancel():
                other.result()

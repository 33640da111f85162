"""Parallel processing of images, one thread per image."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from sppnet.progress import track

Item = TypeVar("Item")
Read = TypeVar("Read")
Result = TypeVar("Result")

_AHEAD = 2
"""Maximum number of items per thread that are in progress or finished but not yet yielded."""


def parallel_iter(
    work: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[Result]:
    """Yield ``work(item)`` of every item, in order, with bounded memory.

    On the CPU, ``torch.get_num_threads()`` items are processed at a time, each by a single thread: small
    images leave a second thread idle inside the network, and decoding overlaps with computation. At most
    two items per thread are prefetched. A result does not depend on the other items.

    Args:
        work: function of one item; it must not modify shared state.
        items: any iterable, consumed lazily.
        device: device of the network; items are processed one after another unless it is the CPU.

    Examples:
        >>> cpu = torch.device("cpu")
        >>> list(parallel_iter(abs, [-1, 2, -3], cpu))
        [1, 2, 3]
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < 2:
        yield from map(work, items)
        return
    pool = _single_threads(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= _AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def staged_iter(
    read: Callable[[Item], Read],
    compute: Callable[[Read], Result],
    items: Iterable[Item],
    device: torch.device,
) -> Iterator[Result]:
    """Yield ``compute(read(item))`` of every item, in order, with bounded memory.

    On the CPU both run in the threads of `parallel_iter`. On other devices the threads prefetch, and the
    device computes one item after another.

    Args:
        read: decodes an item.
        compute: runs the network.
        items: any iterable.
        device: device of the network.

    Examples:
        >>> list(staged_iter(int, abs, ["-1", "2"], torch.device("cpu")))
        [1, 2]
    """
    if device.type == "cpu":
        return parallel_iter(lambda item: compute(read(item)), items, device)
    return map(compute, parallel_iter(read, items, torch.device("cpu")))


def parallel_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    title: str,
    device: torch.device,
    *,
    quiet: bool = False,
) -> list[Result]:
    """Apply `parallel_iter` with a progress bar; a single item uses all threads.

    The number of threads may change the last bits of a result.

    Args:
        work: function of one item; it must not modify shared state.
        items: the items.
        title: title of the progress bar.
        device: device of the network; items are processed one after another unless it is the CPU.
        quiet: hide the progress bar.

    Returns:
        The results, in the order of the items.

    Examples:
        >>> parallel_map(abs, [-1, 2], "Items", torch.device("cpu"), quiet=True)
        [1, 2]
    """
    if len(items) < 2:
        return [work(item) for item in track(items, title, quiet=quiet)]
    return list(track(parallel_iter(work, items, device), title, len(items), quiet=quiet))


def _single_threads(count: int) -> ThreadPoolExecutor:
    """Start a pool of ``count`` threads, each with one thread for torch."""
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        # torch reads the number once per thread, at the first use; it remains 1 from then on.
        torch.get_num_threads()

    pool = ThreadPoolExecutor(count, "sppnet", initializer=start)
    for _ in range(count):
        pool.submit(started.wait)
    started.wait()
    # `set_num_threads` also sets the initial number of threads that start later.
    torch.set_num_threads(count)
    return pool

"""Work on many images at once, each on a thread of its own."""

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
"""Items per thread that are worked on, or finished, before the caller takes them."""


def parallel_iter(
    work: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[Result]:
    """Yield ``work`` of every item, in their order, with bounded memory.

    On the CPU, ``torch.get_num_threads()`` items are processed at a time, each by a single thread: a
    network on a small image leaves a second thread little to do, and decoding overlaps with it. At most
    two items per thread are taken ahead of the caller. A result does not depend on the other items.

    Args:
        work: of one item; it must not change what another one uses.
        items: any iterable, consumed as results are asked for.
        device: where the network computes; on any but the CPU one item follows the other.

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
    """Yield ``compute(read(item))`` of every item, in their order, with bounded memory.

    On the CPU both run in `parallel_iter`'s threads. For another device the threads read ahead, and the
    device computes one item after the other.

    Args:
        read: decodes an item.
        compute: runs the network.
        items: any iterable.
        device: where the network computes.
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
    """`parallel_iter` behind a progress bar, as a list; a single item has all threads.

    Values may differ in the last bits from those of an image on several threads.

    Args:
        work: of one item; it must not change what another one uses.
        items: what to work on.
        title: of the progress bar.
        device: where the network computes; on any but the CPU one item follows the other.
        quiet: no progress bar.
    """
    if len(items) < 2:
        return [work(item) for item in track(items, title, quiet=quiet)]
    return list(track(parallel_iter(work, items, device), title, len(items), quiet=quiet))


def _single_threads(count: int) -> ThreadPoolExecutor:
    """A pool of ``count`` running threads in which torch computes with one thread each."""
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        # torch reads the number once per thread, at first use; from here on it stays 1.
        torch.get_num_threads()

    pool = ThreadPoolExecutor(count, "sppnet", initializer=start)
    for _ in range(count):
        pool.submit(started.wait)
    started.wait()
    # `set_num_threads` is also the number that threads started later begin with.
    torch.set_num_threads(count)
    return pool

"""Work on many images at once, each on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from sppnet.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    title: str,
    device: torch.device,
    *,
    quiet: bool = False,
) -> list[Result]:
    """``work`` of every item, in their order.

    On the CPU, `torch.get_num_threads` items are worked on at a time, each by one thread: a network on a
    small image leaves a second thread little to do, and nobody waits for the decoding of a file. Values
    may differ in the last bits from those of an image on several threads.

    Args:
        work: of one item; it must not change what another one uses.
        items: what to work on.
        title: of the progress bar.
        device: where the network computes; on any but the CPU one item follows the other.
        quiet: no progress bar.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < 2 or len(items) < 2:
        return [work(item) for item in track(items, title, quiet=quiet)]
    pool = ThreadPoolExecutor(threads, "sppnet", initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(track(pool.map(work, items), title, len(items), quiet=quiet))
    finally:
        pool.shutdown(cancel_futures=True)
        # Threads that others start later take their number from the last call.
        torch.set_num_threads(threads)

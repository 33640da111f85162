"""Progress bars with the time left, on stderr, for every loop that may take over two seconds; a stopwatch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def track(
    items: Iterable[Item], title: str, total: int | None = None, *, quiet: bool = False
) -> Iterator[Item]:
    """Yield ``items`` behind a bar that shows the share done, the time spent and the time left.

    Nothing is drawn when ``quiet``, or when stderr is no terminal: then one line says the stage and
    how many items it took, so that a log stays readable.

    Args:
        items: anything iterable.
        title: what is being done, in a few words.
        total: how many items there are; taken from ``len(items)`` where it has one.
        quiet: draw and print nothing.
    """
    if quiet:
        yield from items
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        count = 0
        for item in items:
            yield item
            count += 1
        print(f"{title}: {count}", file=sys.stderr)
        return
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        yield from bars.track(items, total=total, description=title)


@contextmanager
def rate_bar(
    title: str, total: int, unit: str, done: int = 0, *, quiet: bool = False
) -> Generator[Callable[[], None]]:
    """Show a bar with the number of items per second; the function that it gives counts one item.

    Args:
        title: what is being done, in a few words.
        total: how many items there are.
        unit: what the items are called, such as ``"images"``.
        done: items that an earlier, interrupted run has done.
        quiet: draw and print nothing.

    Examples:
        >>> with rate_bar("Features", 3, "images", quiet=True) as advance:
        ...     for _ in range(3):
        ...         advance()
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    start, count = time.perf_counter(), 0
    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )

    def rate() -> str:
        return f"{count / max(time.perf_counter() - start, 1e-9):.1f} {unit}/s"

    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        task = bars.add_task(title, total=total, completed=done, rate="")

        def advance() -> None:
            nonlocal count
            count += 1
            bars.update(task, advance=1, rate=rate())

        yield advance
    if not quiet and not console.is_terminal:
        print(f"{title}: {done + count} of {total}, {rate()}", file=sys.stderr)


class Stopwatch:
    """Seconds by stage, and the peak memory of the process.

    It starts when it is made.
    """

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def __call__(self, stage: str) -> None:
        """Add the time since the last call to ``stage``."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Every stage's seconds, and ``"total"`` since the watch was made."""
        rounded = {stage: round(value, 3) for stage, value in self.stages.items()}
        return {**rounded, "total": round(time.perf_counter() - self._start, 3)}


def peak_memory_mb() -> float | None:
    """The most memory that this process has held so far, in MiB; None where the system does not tell.

    Examples:
        >>> peak_memory_mb() is None or peak_memory_mb() > 0
        True
    """
    try:
        import resource
    except ImportError:  # Windows
        return _windows_peak_mb()
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def _windows_peak_mb() -> float | None:
    """The peak working set by the system's own interface; None elsewhere or where it fails."""
    import ctypes

    windows = getattr(ctypes, "WinDLL", None)
    if windows is None:
        return None

    class Counters(ctypes.Structure):
        # PROCESS_MEMORY_COUNTERS: two 32-bit numbers, then sizes.
        _fields_ = [
            ("cb", ctypes.c_uint32),
            ("page_faults", ctypes.c_uint32),
            ("peak_working_set", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 7),
        ]

    kernel = windows("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    ask = kernel.K32GetProcessMemoryInfo
    ask.argtypes = [ctypes.c_void_p, ctypes.POINTER(Counters), ctypes.c_uint32]
    counters = Counters(cb=ctypes.sizeof(Counters))
    if not ask(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
        return None
    return round(counters.peak_working_set / 2**20, 1)

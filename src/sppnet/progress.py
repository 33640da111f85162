"""Progress bars on stderr for loops that may take more than two seconds, timing and peak memory."""

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
    """Yield ``items`` and show a progress bar with the elapsed and the remaining time.

    If stderr is not a terminal, only one line with the title and the number of items is printed at the
    end, so that logs stay readable.

    Args:
        items: any iterable.
        title: name of the stage, a few words.
        total: number of items; by default ``len(items)``, if it is defined.
        quiet: whether to print nothing.

    Yields:
        The items.

    Examples:
        >>> list(track([1, 2], "Features", quiet=True))
        [1, 2]
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
    """Show a progress bar with the number of items per second.

    Args:
        title: name of the stage, a few words.
        total: number of items.
        unit: plural name of the items, such as ``"images"``.
        done: number of items that an earlier, interrupted run has finished.
        quiet: whether to print nothing.

    Yields:
        A function that counts one item.

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
    """Measure the seconds of each stage, from construction on.

    Attributes:
        stages: seconds of each stage.

    Examples:
        >>> clock = Stopwatch()
        >>> clock("maps")
        >>> list(clock.seconds())
        ['maps', 'total']
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
        """Return the seconds of every stage, and as ``"total"`` those since construction."""
        rounded = {stage: round(value, 3) for stage, value in self.stages.items()}
        return {**rounded, "total": round(time.perf_counter() - self._start, 3)}


def peak_memory_mb() -> float | None:
    """Return the peak memory of this process in MiB, or None if the system does not report it.

    Examples:
        >>> peak_memory_mb() is None or peak_memory_mb() > 0
        True
    """
    try:
        import resource
    except ImportError:  # Windows
        return _windows_peak_mb()
    # The unit is KiB on Linux and bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def _windows_peak_mb() -> float | None:
    """Return the peak working set on Windows in MiB; None on other systems or if the call fails."""
    import ctypes

    windows = getattr(ctypes, "WinDLL", None)
    if windows is None:
        return None

    class Counters(ctypes.Structure):
        # The layout of PROCESS_MEMORY_COUNTERS: two 32-bit numbers, then sizes.
        _fields_ = [
            ("cb", ctypes.c_uint32),
            ("page_faults", ctypes.c_uint32),
            ("peak_working_set", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 7),
        ]

    kernel = windows("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    get_memory_info = kernel.K32GetProcessMemoryInfo
    get_memory_info.argtypes = [ctypes.c_void_p, ctypes.POINTER(Counters), ctypes.c_uint32]
    counters = Counters(cb=ctypes.sizeof(Counters))
    if not get_memory_info(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
        return None
    return round(counters.peak_working_set / 2**20, 1)

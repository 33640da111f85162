"""Progress bars with the time left, on stderr, for every loop that may take over two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], title: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Item]:
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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

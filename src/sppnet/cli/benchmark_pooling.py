"""``sppnet benchmark pooling``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sppnet.cli.flags import read_flags
from sppnet.cli.screen import opened_screen, summary_rows

__all__ = ["PoolingFlags", "run"]


@dataclass(frozen=True)
class PoolingFlags:
    """Measure our pooling and that of torch and torchvision on the same work.

    Attributes:
        quick: fewer sizes and repetitions.
        plot: also draw how time grows into this image.
        json: one JSON document on stdout.
    """

    quick: bool = False
    plot: Path | None = None
    json: bool = False


def run(words: list[str]) -> int:
    """Measure and print."""
    flags = read_flags(PoolingFlags, "sppnet benchmark pooling", words)
    with opened_screen(json=flags.json) as screen:
        from sppnet.benchmark import pooling

        found = pooling.run(quick=flags.quick, plot=flags.plot)
        measured = cast("list[dict[str, object]]", found["rows"])
        rows = [[row[key] for key in ("work", "ours_s", "peer", "peer_s", "ratio")] for row in measured]
        screen.table("benchmark pooling", ("work", "ours, s", "peer", "peer, s", "peer / ours"), rows)
        growth = cast("list[dict[str, object]]", found["growth"])
        screen.table("time by number of regions", list(growth[0]), [list(row.values()) for row in growth])
        screen.table("on", ("", "value"), summary_rows(found))
        screen.document(found)
    return 0

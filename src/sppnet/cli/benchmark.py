"""``sppnet benchmark``: our time against peers', side by side in one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

import tyro

from sppnet.cli.flags import read_flags
from sppnet.cli.screen import opened_screen, summary_rows

__all__ = ["BenchmarkFlags", "run"]


@dataclass(frozen=True)
class BenchmarkFlags:
    """Measure our time and that of peers on the same work.

    Attributes:
        subject: what to measure.
        quick: fewer sizes and repetitions.
        plot: also draw the ratios into this picture.
        json: one JSON document on stdout.
    """

    subject: Annotated[Literal["pooling"], tyro.conf.Positional]
    quick: bool = False
    plot: Path | None = None
    json: bool = False


def run(words: list[str]) -> int:
    """Measure and print."""
    flags = read_flags(BenchmarkFlags, "sppnet benchmark", words)
    with opened_screen(json=flags.json) as screen:
        from sppnet.benchmark import pooling

        found = pooling.run(quick=flags.quick, plot=flags.plot)
        measured = cast("list[dict[str, object]]", found["rows"])
        rows = [[row[key] for key in ("work", "ours_s", "peer", "peer_s", "ratio")] for row in measured]
        head = ("work", "ours, s", "peer", "peer, s", "peer / ours")
        screen.table(f"benchmark {flags.subject}", head, rows)
        growth = cast("list[dict[str, object]]", found["growth"])
        screen.table("time by number of regions", list(growth[0]), [list(row.values()) for row in growth])
        screen.table("on", ("", "value"), summary_rows(found))
        screen.document(found)
    return 0

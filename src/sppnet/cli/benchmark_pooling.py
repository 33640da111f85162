"""``sppnet benchmark pooling``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sppnet.cli.flags import read_flags
from sppnet.cli.paths import OptionalOutFile, check_extra
from sppnet.cli.screen import opened_screen, summary_rows

__all__ = ["PoolingFlags", "run"]


@dataclass(frozen=True)
class PoolingFlags:
    """Compare the times of pooling with those of torch and torchvision on the same tensors.

    Attributes:
        quick: use fewer sizes and repetitions, to test that it runs.
        plot: image file for a plot of the time by number of regions.
        json: print one JSON document on stdout and everything else on stderr.
    """

    quick: bool = False
    plot: OptionalOutFile = None
    json: bool = False


def run(words: list[str]) -> int:
    """Measure and print."""
    flags = read_flags(PoolingFlags, "sppnet benchmark pooling", words)
    if flags.plot is not None:
        check_extra("matplotlib", "plot", "plots")
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

"""``sppnet benchmark detection``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Annotated, cast

import tyro

from sppnet.benchmark.settings import DetectionBenchmark
from sppnet.cli.flags import read_flags
from sppnet.cli.paths import OptionalOutFile, check_extra
from sppnet.cli.screen import opened_screen, summary_rows

__all__ = ["DetectionFlags", "run"]


@dataclass(frozen=True)
class DetectionFlags:
    """Compare the times of features of windows: pooled from maps, and from cropped windows (R-CNN).

    Attributes:
        settings: settings of the benchmark.
        plot: image file for a plot of the ratio by number of windows.
        json: print one JSON document on stdout and everything else on stderr.
    """

    settings: Annotated[DetectionBenchmark, tyro.conf.arg(name="")] = field(
        default_factory=DetectionBenchmark
    )
    plot: OptionalOutFile = None
    json: bool = False


def run(words: list[str]) -> int:
    """Measure and print."""
    flags = read_flags(DetectionFlags, "sppnet benchmark detection", words)
    if flags.plot is not None:
        check_extra("matplotlib", "plot", "plots")
    with opened_screen(json=flags.json) as screen:
        from sppnet.benchmark.detection import run as measure

        found = measure(flags.settings, flags.plot, lambda line: print(line, file=sys.stderr))
        measured = cast("list[dict[str, object]]", found["rows"])
        rows = [[row[key] for key in ("work", "ours_s", "peer", "peer_s", "ratio")] for row in measured]
        screen.table("benchmark detection", ("work", "ours, s", "peer", "peer, s", "peer / ours"), rows)
        growth = cast("list[dict[str, object]]", found["growth"])
        screen.table("by number of windows", list(growth[0]), [list(row.values()) for row in growth])
        screen.table("on", ("", "value"), summary_rows(found))
        screen.document(found)
    return 0

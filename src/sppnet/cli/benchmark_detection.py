"""``sppnet benchmark detection``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import tyro

from sppnet.benchmark.detection import DetectionBenchmark
from sppnet.benchmark.detection import run as measure
from sppnet.cli.flags import read_flags
from sppnet.cli.screen import opened_screen, summary_rows

__all__ = ["DetectionFlags", "run"]


@dataclass(frozen=True)
class DetectionFlags:
    """Time the features of an image's windows: pooled from maps, and by crops convolved one by one (R-CNN).

    Attributes:
        settings: what is measured.
        plot: also draw how the ratio grows with the number of windows into this image.
        json: one JSON document on stdout.
    """

    settings: Annotated[DetectionBenchmark, tyro.conf.arg(name="")] = field(
        default_factory=DetectionBenchmark
    )
    plot: Path | None = None
    json: bool = False


def run(words: list[str]) -> int:
    """Measure and print."""
    flags = read_flags(DetectionFlags, "sppnet benchmark detection", words)
    with opened_screen(json=flags.json) as screen:
        found = measure(flags.settings, flags.plot, lambda line: print(line, file=sys.stderr))
        measured = cast("list[dict[str, object]]", found["rows"])
        rows = [[row[key] for key in ("work", "ours_s", "peer", "peer_s", "ratio")] for row in measured]
        screen.table("benchmark detection", ("work", "ours, s", "peer", "peer, s", "peer / ours"), rows)
        growth = cast("list[dict[str, object]]", found["growth"])
        screen.table("by number of windows", list(growth[0]), [list(row.values()) for row in growth])
        screen.table("on", ("", "value"), summary_rows(found))
        screen.document(found)
    return 0

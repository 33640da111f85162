"""``sppnet benchmark backbones``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sppnet.cli.flags import read_flags
from sppnet.cli.screen import opened_screen, summary_rows

__all__ = ["BackbonesBenchmarkFlags", "run"]


@dataclass(frozen=True)
class BackbonesBenchmarkFlags:
    """Compare the time of the bundled network with that of SqueezeNet 1.0 on one image.

    Attributes:
        runs: number of runs of each network, interleaved; medians are reported.
        quick: use fewer runs, to test that it works.
        json: print one JSON document on stdout and everything else on stderr.
    """

    runs: int = 15
    quick: bool = False
    json: bool = False


def run(words: list[str]) -> int:
    """Measure and print."""
    flags = read_flags(BackbonesBenchmarkFlags, "sppnet benchmark backbones", words)
    with opened_screen(json=flags.json) as screen:
        from sppnet.benchmark import backbones

        found = backbones.run(runs=3 if flags.quick else flags.runs)
        measured = cast("list[dict[str, object]]", found["rows"])
        rows = [[row[key] for key in ("work", "ours_s", "peer", "peer_s", "ratio")] for row in measured]
        screen.table("benchmark backbones", ("work", "ours, s", "peer", "peer, s", "peer / ours"), rows)
        single = {name: value for name, value in found.items() if name != "rows"}
        screen.table("on", ("", "value"), summary_rows(single))
        screen.document(found)
    return 0

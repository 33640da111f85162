"""``sppnet benchmark classification``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sppnet.cli.flags import read_flags
from sppnet.cli.screen import opened_screen, summary_rows

__all__ = ["ClassificationFlags", "run"]


@dataclass(frozen=True)
class ClassificationFlags:
    """Measure 96 views on the maps against 96 crops, and training at two sizes.

    Attributes:
        backbone: one of the paper's networks.
        runs: of either way, in turn.
        quick: a narrow network and small pictures.
        json: one JSON document on stdout.
    """

    backbone: str = "zf5"
    runs: int = 3
    quick: bool = False
    json: bool = False


def run(words: list[str]) -> int:
    """Measure and print."""
    flags = read_flags(ClassificationFlags, "sppnet benchmark classification", words)
    with opened_screen(json=flags.json) as screen:
        from sppnet.benchmark import classification

        found = classification.run(flags.backbone, runs=flags.runs, quick=flags.quick)
        measured = cast("list[dict[str, object]]", found["rows"])
        rows = [[row[key] for key in ("work", "ours_s", "peer", "peer_s", "ratio")] for row in measured]
        screen.table("benchmark classification", ("work", "ours, s", "peer", "peer, s", "peer / ours"), rows)
        screen.table("on", ("", "value"), summary_rows(found))
        screen.document(found)
    return 0

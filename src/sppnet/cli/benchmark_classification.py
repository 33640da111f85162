"""``sppnet benchmark classification``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sppnet.cli.flags import read_flags
from sppnet.cli.screen import opened_screen, summary_rows

__all__ = ["ClassificationFlags", "run"]


@dataclass(frozen=True)
class ClassificationFlags:
    """Measure 96 views on the maps against 96 crops, and training at two sizes.

    Attributes:
        backbone: one of the paper's networks, for the times.
        runs: of either way, in turn.
        data: labelled images on which to compare the accuracy of ten views on the maps and by crops, too.
        network: the pretrained network of that comparison.
        weights: its local weights, a safetensors file.
        quick: a narrow network and small images.
        json: one JSON document on stdout.
    """

    backbone: str = "zf5"
    runs: int = 3
    data: Path | None = None
    network: str = "builtin"
    weights: Path | None = None
    quick: bool = False
    json: bool = False


def run(words: list[str]) -> int:
    """Measure and print."""
    flags = read_flags(ClassificationFlags, "sppnet benchmark classification", words)
    with opened_screen(json=flags.json) as screen:
        from sppnet.benchmark import classification

        found = classification.run(flags.backbone, runs=flags.runs, quick=flags.quick)
        if flags.data is not None:
            from sppnet.benchmark.views import views_accuracy

            found["views"] = views_accuracy(
                flags.data, flags.network, flags.weights, quick=flags.quick, quiet=flags.json
            )
        measured = cast("list[dict[str, object]]", found["rows"])
        rows = [[row[key] for key in ("work", "ours_s", "peer", "peer_s", "ratio")] for row in measured]
        screen.table("benchmark classification", ("work", "ours, s", "peer", "peer, s", "peer / ours"), rows)
        if "views" in found:
            compared = cast("dict[str, object]", found["views"])
            screen.table("ten views", ("", "value"), summary_rows(compared))
        screen.table("on", ("", "value"), summary_rows(found))
        screen.document(found)
    return 0

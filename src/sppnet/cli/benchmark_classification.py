"""``sppnet benchmark classification``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sppnet.cli.flags import read_flags
from sppnet.cli.paths import OptionalDataPath, WeightsPath
from sppnet.cli.screen import opened_screen, summary_rows

__all__ = ["ClassificationFlags", "run"]


@dataclass(frozen=True)
class ClassificationFlags:
    """Compare the times of 96 views pooled from maps and of 96 crops, and of training at two sizes.

    Attributes:
        backbone: network of the paper whose times are measured.
        runs: number of runs of each method, interleaved.
        data: labelled images on which the accuracy of ten views from maps and of ten crops is compared.
        network: pretrained network for the accuracies.
        weights: local weights of that network, a safetensors file.
        quick: use a narrow network and small images, to test that it runs.
        json: print one JSON document on stdout and everything else on stderr.
    """

    backbone: str = "zf5"
    runs: int = 3
    data: OptionalDataPath = None
    network: str = "builtin"
    weights: WeightsPath = None
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

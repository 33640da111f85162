"""``sppnet evaluate``: how good a run is on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sppnet.cli.estimators import Device, load_estimator
from sppnet.cli.flags import read_flags
from sppnet.cli.report import report_evaluation
from sppnet.cli.screen import metric_tables, opened_screen
from sppnet.cli.tiles import use_tiles
from sppnet.runs import append_log, write_metrics

if TYPE_CHECKING:
    from sppnet.cli.estimators import Estimator

__all__ = ["EvaluateFlags", "evaluate_run", "run"]


@dataclass(frozen=True)
class EvaluateFlags:
    """Evaluate a run on labelled images; writes metrics.json and report.html into it.

    Attributes:
        run: a folder that sppnet fit wrote.
        data: a folder of labelled images; its layout is recognised by looking.
        split: which part of the data; the part for evaluation when left out.
        format: the layout of the data, where looking is not enough: voc, coco, yolo or folders.
        tile: cut images into tiles of at most this side, in pixels; 0 takes them whole. As in fitting when
            left out.
        overlap: share of a tile that the next one repeats.
        device: where to compute.
        json: one JSON document on stdout, everything else on stderr.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    split: str | None = None
    format: str | None = None
    tile: int | None = None
    overlap: float | None = None
    device: Device = "auto"
    json: bool = False


def run(words: list[str]) -> int:
    """Evaluate, show and write."""
    flags = read_flags(EvaluateFlags, "sppnet evaluate", words)
    with opened_screen(json=flags.json) as screen:
        estimator = load_estimator(flags.run, flags.device)
        use_tiles("sppnet evaluate", estimator, flags.tile, flags.overlap)
        metrics = evaluate_run(estimator, flags.run, flags.data, flags.split, flags.format)
        screen.say(f"{flags.run} on {flags.data}")
        for title, head, rows in metric_tables(metrics):
            screen.table(title, head, rows)
        screen.say(f"Written: metrics.json and report.html in {flags.run}")
        screen.document(metrics)
    return 0


def evaluate_run(
    estimator: Estimator, run: Path, data: Path, split: str | None, layout: str | None = None
) -> dict[str, Any]:
    """What the estimator's `evaluate` returns, also written into the run folder.

    Raises:
        UserError: data at fault.
    """
    metrics = estimator.evaluate(data, split, layout=layout)
    written = {**metrics, "data": data, "split": split}
    write_metrics(run, written)
    whole = {name: value for name, value in written.items() if name != "per_class"}
    append_log(run, {"verb": "evaluate", **whole})
    report_evaluation(estimator, run, data, split, layout, metrics)
    return metrics

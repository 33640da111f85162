"""``sppnet evaluate``: how good a run is on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sppnet.cli.estimators import Device
from sppnet.cli.flags import read_flags
from sppnet.cli.paths import check_data_path, check_run_path
from sppnet.cli.screen import metric_tables, opened_screen
from sppnet.cli.tiles import use_tiles

if TYPE_CHECKING:
    from sppnet.estimators import Estimator

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
        skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
        json: one JSON document on stdout, everything else on stderr.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    split: str | None = None
    format: str | None = None
    tile: int | None = None
    overlap: float | None = None
    device: Device = "auto"
    skip_bad: bool = False
    json: bool = False


def run(words: list[str]) -> int:
    """Evaluate, show and write."""
    flags = read_flags(EvaluateFlags, "sppnet evaluate", words)
    check_run_path(flags.run)
    check_data_path(flags.data)
    with opened_screen(json=flags.json) as screen:
        from sppnet.estimators import load

        estimator = load(flags.run, flags.device)
        use_tiles("sppnet evaluate", estimator, flags.tile, flags.overlap)
        metrics = evaluate_run(
            estimator, flags.run, flags.data, flags.split, flags.format, skip_bad=flags.skip_bad
        )
        screen.say(f"{flags.run} on {flags.data}")
        for title, head, rows in metric_tables(metrics):
            screen.table(title, head, rows)
        for note in metrics["notes"]:
            screen.say(f"Note: {note}")
        screen.say(f"Written: metrics.json and report.html in {flags.run}")
        screen.document(metrics)
    return 0


def evaluate_run(
    estimator: Estimator[Any],
    run: Path,
    data: Path,
    split: str | None,
    layout: str | None = None,
    *,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """What the estimator's `evaluate` returns, also written into the run folder.

    Raises:
        UserError: data at fault.
    """
    from sppnet.cli.report import report_evaluation
    from sppnet.locks import locked
    from sppnet.runs import append_log, write_metrics

    metrics = estimator.evaluate(data, split, layout=layout, skip_bad=skip_bad)
    written = {**metrics, "data": data, "split": split}
    whole = {name: value for name, value in written.items() if name != "per_class"}
    with locked(run):
        write_metrics(run, written)
        append_log(run, {"verb": "evaluate", **whole})
        report_evaluation(estimator, run, data, split, layout, metrics, skip_bad=skip_bad)
    return metrics

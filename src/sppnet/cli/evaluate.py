"""``sppnet evaluate``: metrics of a run on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sppnet.cli.estimators import Device, Layout
from sppnet.cli.flag_table import ADVANCED
from sppnet.cli.flags import read_flags
from sppnet.cli.limits import pixel_limit
from sppnet.cli.paths import DataPath, RunPath
from sppnet.cli.screen import metric_tables, opened_screen
from sppnet.cli.tiles import use_tiles

if TYPE_CHECKING:
    from sppnet.estimators import Estimator

__all__ = ["EvaluateFlags", "evaluate_run", "run"]


@dataclass(frozen=True)
class EvaluateFlags:
    """Evaluate a run on labelled images; write metrics.json and report.html into the run folder.

    Attributes:
        run: run folder of sppnet fit or sppnet train.
        data: labelled images; the layout is detected from the files.
        split: split to evaluate on; the test or validation split by default.
        format: layout of the data, if it cannot be detected.
        tile: maximum side of the tiles of an image, in pixels; 0 for no tiles. Default: the value of the run.
        overlap: overlap of neighbouring tiles as a fraction of their side.
        device: device to compute on.
        skip_bad: skip damaged images instead of reporting them as an error.
        max_megapixels: maximum size of images; 179 by default, the limit of Pillow.
        json: print one JSON document on stdout and everything else on stderr.
    """

    run: Annotated[RunPath, tyro.conf.Positional]
    data: Annotated[DataPath, tyro.conf.Positional]
    split: str | None = None
    format: Layout | None = None
    tile: int | None = None
    overlap: float | None = None
    device: Device = "auto"
    skip_bad: bool = False
    max_megapixels: Annotated[float | None, ADVANCED] = None
    json: bool = False


def run(words: list[str]) -> int:
    """Evaluate, print and write the metrics."""
    flags = read_flags(EvaluateFlags, "sppnet evaluate", words)
    with opened_screen(json=flags.json) as screen, pixel_limit(flags.max_megapixels):
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
    """Evaluate an estimator and write metrics and report into the run folder.

    Returns:
        The metrics of `Estimator.evaluate`.

    Raises:
        UserError: the data are invalid.
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

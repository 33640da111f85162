"""The file ``report.html`` of a run, with the metrics and some images of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sppnet.cli.screen import metric_tables, summary_rows
from sppnet.draw import ReportImage, ReportTable, write_report

if TYPE_CHECKING:
    from sppnet.estimators import Estimator

Item = TypeVar("Item")

__all__ = ["report_evaluation"]

_SHOWN = 8
_LARGE = ("AP50", "AP75", "AP", "accuracy", "mean_class_accuracy", "top5")


def report_evaluation(
    estimator: Estimator[Any],
    run: Path,
    data: Path,
    split: str | None,
    layout: str | None,
    metrics: Mapping[str, object],
    *,
    skip_bad: bool = False,
) -> Path:
    """Write ``report.html``: main metrics, all metrics, metrics per class, summary of fitting, images.

    Returns:
        The path of the file.

    Raises:
        UserError: the data are invalid.
    """
    measured, _ = estimator.to_measure(data, split, layout=layout, skip_bad=skip_bad)
    images: list[ReportImage] = []
    for item in _spread(measured.items):
        drawn, caption = estimator.predict_one(item.path).report_image(item, measured.names)
        images.append(ReportImage(drawn, caption))
    tables = [
        *(ReportTable(title, head, rows) for title, head, rows in metric_tables(metrics)),
        ReportTable("Fitting", ("", "value"), summary_rows(estimator.summary_)),
    ]
    large = {name: metrics[name] for name in _LARGE if name in metrics}
    path = run / "report.html"
    title = f"{run.name} on {data.name}" + (f", {measured.split}" if measured.split else "")
    write_report(path, title, large, tables, images)
    return path


def _spread(items: Sequence[Item]) -> list[Item]:
    """Select a few evenly spaced items."""
    count = min(_SHOWN, len(items))
    return [items[i * len(items) // count] for i in range(count)]

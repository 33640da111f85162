"""``report.html`` of a run: the figures of an evaluation and some of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sppnet.cli.screen import metric_tables, summary_rows
from sppnet.data import read_pixels
from sppnet.detect import DetectionResult, Detector
from sppnet.draw import ReportImage, ReportTable, draw_comparison, write_report
from sppnet.structures import ClassificationSet, DetectionSet

if TYPE_CHECKING:
    from sppnet.classify import Classifier, NetworkClassifier
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
    """Write ``report.html``: main figures, every figure, a row a class, what was learned from, images.

    Returns:
        The path of the file.

    Raises:
        UserError: data at fault.
    """
    if isinstance(estimator, Detector):
        measured, _ = estimator.to_measure(data, split, layout=layout, skip_bad=skip_bad)
        images = _detected(estimator, measured)
    else:
        classifier = cast("Classifier | NetworkClassifier", estimator)
        measured, _ = classifier.to_measure(data, split, layout=layout, skip_bad=skip_bad)
        images = _classified(classifier, measured)
    tables = [
        *(ReportTable(title, head, rows) for title, head, rows in metric_tables(metrics)),
        ReportTable("Fitting", ("", "value"), summary_rows(estimator.summary_)),
    ]
    large = {name: metrics[name] for name in _LARGE if name in metrics}
    path = run / "report.html"
    title = f"{run.name} on {data.name}" + (f", {measured.split}" if measured.split else "")
    write_report(path, title, large, tables, images)
    return path


def _detected(detector: Detector, dataset: DetectionSet) -> list[ReportImage]:
    """Images with what is annotated at the left and what was found at the right."""
    images: list[ReportImage] = []
    for item in _some(dataset.items):
        result = detector.predict(item.path)
        assert isinstance(result, DetectionResult)
        drawn = draw_comparison(read_pixels(item.path), item.truth, result.detections)
        images.append(ReportImage(drawn, item.path.name))
    return images


def _classified(classifier: Classifier | NetworkClassifier, dataset: ClassificationSet) -> list[ReportImage]:
    """Images with their top classes, the true one below."""
    images: list[ReportImage] = []
    for item in _some(dataset.items):
        result = classifier.predict(item.path)
        assert not isinstance(result, list)
        images.append(ReportImage(result.plot(), f"{item.path.name}: {dataset.names[item.label]}"))
    return images


def _some(items: Sequence[Item]) -> list[Item]:
    """A few of many, evenly spread."""
    count = min(_SHOWN, len(items))
    return [items[i * len(items) // count] for i in range(count)]

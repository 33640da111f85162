"""Make the table of docs/export.md: accuracy, size and time of exported files beside torch.

Run it with ``python -m sppnet.recipes.export_table --data DIR --write``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sppnet import Classifier, Detector
from sppnet.data import find_images, read_classification, read_detection, read_pixels
from sppnet.errors import UserError
from sppnet.export import evaluate_export
from sppnet.export.network import PRECISIONS
from sppnet.files import write_text
from sppnet.runtime import Runtime

DOCUMENT = Path("docs/export.md")
START, END = "<!-- table of sppnet.recipes.export_table -->", "<!-- end of table -->"
HEAD = ("estimator", "by", "MB", "AP50 / AP75, accuracy", "ms, 1 thread", "ms, 2 threads")
BACKBONES = ("builtin", "lite0")
_CALIBRATION = 100  # training images that set the ranges of int8
_THREADS = (1, 2)

Predict = Callable[[Any], Any]


@dataclass(frozen=True)
class Row:
    """One line: an estimator by torch, or a file of it.

    Attributes:
        estimator: kind and backbone.
        by: ``torch``, or the precision of the file.
        mb: size of the file.
        accuracy: AP50 and AP75, or the accuracy.
        ms: for each number of threads, the median time of an image and, for files, its ratio to torch.
    """

    estimator: str
    by: str
    mb: float | None
    accuracy: tuple[float, ...]
    ms: tuple[tuple[float, float | None], ...]

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the line."""
        size = "-" if self.mb is None else f"{self.mb:.1f}"
        times = [f"{ms:.0f}" + ("" if ratio is None else f" ({ratio:.2f})") for ms, ratio in self.ms]
        accuracy = " / ".join(f"{value:.3f}" for value in self.accuracy)
        return (self.estimator, self.by, size, accuracy, *times)


def interleaved(jobs: Sequence[Predict], images: Sequence[Any], rounds: int) -> list[float]:
    """Return the median milliseconds of each job for an image; jobs take turns on every image."""
    times: list[list[float]] = [[] for _ in jobs]
    for job in jobs:
        job(images[0])
    for turn in range(rounds):
        for number, image in enumerate(images):
            order = range(len(jobs)) if (turn + number) % 2 else reversed(range(len(jobs)))
            for which in order:
                before = time.perf_counter()
                jobs[which](image)
                times[which].append(1000 * (time.perf_counter() - before))
    return [statistics.median(some) for some in times]


def measure(
    name: str, estimator: Any, data: Path, split: str, calibration: Sequence[Path], rounds: int
) -> list[Row]:
    """Export an estimator in every precision, and measure all of them and torch.

    Args:
        name: of the estimator in the table.
        estimator: a fitted one.
        data: labelled images.
        split: the one to measure on.
        calibration: images for int8.
        rounds: passes over the timed images.
    """
    images = _images(estimator, data, split)
    shown = ("AP50", "AP75") if estimator.kind == "detector" else ("accuracy",)
    files: dict[str, Path] = {}
    accuracy: dict[str, tuple[float, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            images_of = calibration if precision == "int8" else ()
            path = Path(folder, f"{precision}.onnx")
            files[precision] = estimator.export(path, precision=precision, calibration=images_of)
            found = evaluate_export(estimator, path, data, split)
            accuracy["torch"] = tuple(found[metric][0] for metric in shown)
            accuracy[precision] = tuple(found[metric][1] for metric in shown)
        times = [_times(estimator, list(files.values()), images, threads, rounds) for threads in _THREADS]
        sizes = {precision: path.stat().st_size / 2**20 for precision, path in files.items()}
    rows = [Row(name, "torch", None, accuracy["torch"], tuple((one[0], None) for one in times))]
    for number, precision in enumerate(files, 1):
        ms = tuple((one[number], one[number] / one[0]) for one in times)
        rows.append(Row(name, precision, sizes[precision], accuracy[precision], ms))
    return rows


def _times(
    estimator: Any, files: Sequence[Path], images: Sequence[Any], threads: int, rounds: int
) -> list[float]:
    """Return the milliseconds of torch and of each file."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        jobs: list[Predict] = [estimator.predict]
        jobs += [Runtime(path, threads=threads).predict for path in files]
        return interleaved(jobs, images, rounds)
    finally:
        torch.set_num_threads(before)


def _images(estimator: Any, data: Path, split: str) -> list[Any]:
    """Return some images to time, decoded."""
    read = read_detection if estimator.kind == "detector" else read_classification
    items = read(data, split).items
    return [read_pixels(item.path) for item in items[:: max(1, len(items) // 10)][:10]]


def make_rows(data: Path, backbones: Sequence[str], rounds: int) -> list[Row]:
    """Fit a detector on BCCD and a classifier on a part of Caltech-101, and measure both.

    Raises:
        UserError: the folder has neither data set.
    """
    rows: list[Row] = []
    cells, photographs = data / "bccd", data / "caltech101-small"
    if not cells.is_dir() and not photographs.is_dir():
        raise UserError(data, "a folder with bccd or caltech101-small", "neither")
    for backbone in backbones:
        if cells.is_dir():
            detector = Detector(backbone, device="cpu").fit(cells, "train", quiet=True)
            images = [item.path for item in read_detection(cells, "train").items[:_CALIBRATION]]
            rows += measure(f"detector, `{backbone}`, BCCD", detector, cells, "val", images, rounds)
        if photographs.is_dir():
            classifier = Classifier(backbone, device="cpu").fit(photographs, "train", quiet=True)
            found = find_images([photographs / "train"])
            images = found[:: max(1, len(found) // _CALIBRATION)][:_CALIBRATION]
            rows += measure(
                f"classifier, `{backbone}`, Caltech-101", classifier, photographs, "test", images, rounds
            )
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row.cells()) + " |" for row in rows])


def with_table(text: str, lines: str) -> str:
    """Return a document with another table between its two marks.

    Raises:
        UserError: the document lacks the marks.

    Examples:
        >>> with_table(f"{START} old {END}", "new").splitlines()[1]
        'new'
    """
    head, start, rest = text.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end:
        raise UserError("document", f"the marks {START} and {END}", "a text without them")
    return f"{head}{START}\n{lines}\n{END}{tail}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write it into the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with bccd and caltech101-small")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the table into docs/export.md")
    options = parser.parse_args(arguments)
    lines = table(make_rows(options.data, options.backbones, options.rounds))
    print(lines)
    if options.write:
        write_text(DOCUMENT, with_table(DOCUMENT.read_text(encoding="utf-8"), lines))


if __name__ == "__main__":
    main()

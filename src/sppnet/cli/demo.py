"""``sppnet demo``: fit, evaluate and predict on images made from data of scikit-learn."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sppnet.cli.flags import read_flags
from sppnet.cli.paths import OutFolder
from sppnet.cli.predict import draw_images
from sppnet.cli.screen import metric_tables, opened_screen
from sppnet.errors import UserError
from sppnet.files import is_temporary, remove_folder, remove_temporaries, write_text
from sppnet.locks import locked
from sppnet.progress import Stopwatch

if TYPE_CHECKING:
    from sppnet.estimators import Estimator

__all__ = ["DemoFlags", "run"]

_MARK, _LOCK = "demo.json", ".sppnet-demo.lock"
_OURS = {"made_by": "sppnet demo"}
_PARTS = ("data", "detector", "classifier", "images")


@dataclass(frozen=True)
class DemoFlags:
    """Fit a detector and a classifier, evaluate and predict; offline, a few minutes on two cores.

    The images are handwritten digits on crops of two photographs, all from scikit-learn. The training and
    test splits share neither digits nor pixels of a photograph.

    Attributes:
        out: folder for images, runs and the report; files of an earlier demo are replaced.
        seed: seed of the images and of all random numbers.
        json: print one JSON document on stdout and everything else on stderr.
    """

    out: OutFolder = Path("demo")
    seed: int = 0
    json: bool = False


def run(words: list[str]) -> int:
    """Fit, evaluate and predict, and write images and a report."""
    flags = read_flags(DemoFlags, "sppnet demo", words)
    if not 0 <= flags.seed < 2**63:
        raise UserError("--seed", "a whole number from 0 to 2 ** 63 - 1", flags.seed)
    _check_out(flags.out)
    with locked(flags.out, create=True, name=_LOCK), opened_screen(json=flags.json) as screen:
        _clear(flags.out)
        from sppnet.classify import Classifier
        from sppnet.data import find_images
        from sppnet.detect import Detector, DetectorOptions
        from sppnet.recipes.demo_data import write_demo_data
        from sppnet.runs import json_text

        watch = Stopwatch()
        sets = write_demo_data(flags.out / "data", flags.seed)
        watch("data")
        # No flips, because a flipped digit is not a digit.
        detector = Detector(seed=flags.seed, options=DetectorOptions(flip_below=0))
        found = _fit(detector, sets.detection, flags.out / "detector", watch)
        classifier = Classifier(seed=flags.seed)
        named = _fit(classifier, sets.classification, flags.out / "classifier", watch)
        images = flags.out / "images"
        drawn = draw_images(detector, find_images([sets.new]), images)
        drawn += draw_images(classifier, find_images([sets.class_new]), images)
        watch("predict")
        seconds = watch.seconds()
        document: dict[str, object] = {
            "AP50": found["AP50"],
            "AP75": found["AP75"],
            "AP": found["AP"],
            "mean_class_accuracy": named["mean_class_accuracy"],
            "seconds": seconds.pop("total"),
        }
        screen.table("demo", ("", "value"), list(document.items()))
        screen.table("seconds", ("stage", "s"), list(seconds.items()))
        tables = [("Detection", found), ("Classification", named)]
        _report(flags.out / "report.html", document, tables, drawn)
        screen.say(f"Written: {flags.out / 'report.html'}, images in {images}")
        document |= {"out": flags.out, "stages": seconds}
        write_text(flags.out / _MARK, json_text({**_OURS, **document}))
        screen.document(document)
    return 0


def _fit(estimator: Estimator[Any], data: Path, run: Path, watch: Stopwatch) -> Mapping[str, Any]:
    """Fit on the training split, save the run and evaluate on the test split."""
    from sppnet.cli.evaluate import evaluate_run
    from sppnet.runs import append_log

    estimator.fit(data, "train")
    append_log(estimator.save(run), {"verb": "fit", "data": data, **estimator.summary_})
    watch(f"fit {run.name}")
    metrics = evaluate_run(estimator, run, data, "test")
    watch(f"evaluate {run.name}")
    return metrics


def _report(
    path: Path, facts: Mapping[str, object], found: list[tuple[str, Mapping[str, Any]]], images: list[Path]
) -> None:
    from sppnet.draw import ReportImage, ReportTable, write_report

    tables = [
        ReportTable(f"{name}: {title.lower()}", head, rows)
        for name, metrics in found
        for title, head, rows in metric_tables(metrics)
    ]
    shown = [ReportImage(image.read_bytes(), f"new: {image.name}") for image in images]
    write_report(path, "Digits on photographs", facts, tables, shown)


def _check_out(out: Path) -> None:
    """Raise `UserError` if the folder has files of other origin; a demo marks its folder at the start."""
    if not os.path.lexists(out) or _is_ours(out):
        return
    if out.is_dir():
        try:
            names = os.listdir(out)
        except OSError as error:
            raise UserError(out, "a folder that can be read", error.strerror or error) from error
        # Files of a demo that was killed before it marked its folder.
        if all(name == _LOCK or is_temporary(name) for name in names):
            return
    expected = "a new folder, or one of an earlier demo"
    raise UserError(out, expected, "other files", "Choose another folder with --out.")


def _clear(out: Path) -> None:
    """Mark the folder, and remove the files of an earlier demo."""
    _check_out(out)
    remove_temporaries(out)
    for name in _PARTS:
        remove_folder(out / name)
    write_text(out / _MARK, json.dumps(_OURS))


def _is_ours(out: Path) -> bool:
    """Return whether the folder has the mark of an earlier demo."""
    try:
        content: object = json.loads((out / _MARK).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and _OURS.items() <= cast("dict[str, object]", content).items()

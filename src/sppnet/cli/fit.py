"""``sppnet fit detect | classify``: linear heads on frozen features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sppnet.cli.estimators import Device, Layout
from sppnet.cli.flag_table import ADVANCED
from sppnet.cli.flags import ConfigFile
from sppnet.cli.jobs import run_job
from sppnet.cli.limits import pixel_limit
from sppnet.cli.paths import DataPath, NewRun, WeightsPath
from sppnet.cli.screen import Screen, opened_screen, summary_rows
from sppnet.config import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from sppnet.estimators import Estimator

__all__ = ["JOBS", "FitFlags", "fit_and_save", "fit_summary", "run", "show_fit"]

JOBS = {
    "detect": "a detector on images with boxes (VOC, COCO, YOLO): SVMs and box regressors",
    "classify": "a classifier on class folders: linear SVM",
}


@dataclass(frozen=True)
class FitFlags:
    """Flags of all jobs.

    Attributes:
        data: labelled images; the layout is detected from the files.
        out: run folder to write.
        split: split to fit on; the training split by default.
        format: layout of the data, if it cannot be detected.
        backbone: lite0, lite2, builtin, torchvision:NAME or timm:NAME.
        weights: local weights of the backbone, a safetensors file; nothing is downloaded.
        device: device to compute on.
        seed: seed of all random numbers.
        val_share: fraction of the images held out for sppnet evaluate if the data have no splits; 0.2 by
            default, 0 to fit on all images.
        skip_bad: skip damaged images instead of reporting them as an error.
        max_megapixels: maximum size of images; 179 by default, the limit of Pillow.
        config: TOML file with values for these flags; flags on the command line win.
        json: print one JSON document on stdout and everything else on stderr.
        overwrite: replace the run in OUT.
    """

    data: Annotated[DataPath, tyro.conf.Positional]
    out: NewRun
    split: str | None = None
    format: Annotated[Layout | None, ADVANCED] = None
    backbone: str = DEFAULT_BACKBONE
    weights: WeightsPath = None
    device: Device = "auto"
    seed: int = 0
    val_share: Annotated[float | None, ADVANCED] = None
    skip_bad: bool = False
    max_megapixels: Annotated[float | None, ADVANCED] = None
    config: ConfigFile = None
    json: bool = False
    overwrite: bool = False


def run(words: list[str]) -> int:
    """Run a job."""
    return run_job("fit", JOBS, words, "DATA --out RUN ...")


def fit_and_save(estimator: Estimator[Any], flags: FitFlags) -> int:
    """Fit, save the run and print a summary.

    Args:
        estimator: the estimator.
        flags: the flags.

    Returns:
        The exit code.

    Raises:
        UserError: OUT must not be written, which is checked first, or fitting fails.
    """
    from sppnet.runs import append_log, lock_run

    estimator.check_params()
    with (
        lock_run(flags.out, overwrite=flags.overwrite),
        opened_screen(json=flags.json) as screen,
        pixel_limit(flags.max_megapixels),
    ):
        estimator.fit(flags.data, flags.split, layout=flags.format, skip_bad=flags.skip_bad)
        estimator.save(flags.out, overwrite=flags.overwrite)
        learned = fit_summary(estimator, flags.out, flags.data)
        append_log(flags.out, {"verb": "fit", **learned})
        show_fit(screen, estimator, learned)
    return 0


def fit_summary(estimator: Estimator[Any], out: Path, data: Path) -> dict[str, object]:
    """Return the JSON document of a fit."""
    return {"run": out, "data": data, "classes": list(estimator.names_), **estimator.summary_}


def show_fit(screen: Screen, estimator: Estimator[Any], learned: Mapping[str, object]) -> None:
    """Print the result of `fit_summary`, the notes and the next commands."""
    run = learned["run"]
    screen.table(f"{run}: {len(estimator.names_)} classes", ("", "value"), summary_rows(learned))
    for note in estimator.summary_["notes"]:
        screen.say(f"Note: {note}")
    screen.say(f"Next: sppnet evaluate {run} DATA, or sppnet predict {run} IMAGE")
    screen.document(learned)

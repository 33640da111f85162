"""``sppnet fit detect | classify``: linear heads on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sppnet.cli.estimators import Device, Layout
from sppnet.cli.flag_table import ADVANCED
from sppnet.cli.flags import ConfigFile
from sppnet.cli.jobs import run_job
from sppnet.cli.paths import DataPath, NewRun, WeightsPath
from sppnet.cli.screen import opened_screen, summary_rows
from sppnet.config import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from sppnet.estimators import Estimator

__all__ = ["JOBS", "FitFlags", "fit_and_save", "run"]

JOBS = {
    "detect": "a detector on images with boxes (VOC, COCO, YOLO): SVMs and box regressors",
    "classify": "a classifier on class folders: linear SVM",
}


@dataclass(frozen=True)
class FitFlags:
    """Flags of both jobs.

    Attributes:
        data: labelled images; the layout is detected from the files.
        out: run folder to write.
        split: split to fit on; the training split when left out.
        format: layout of the data where it cannot be detected.
        backbone: lite0, lite2, builtin, torchvision:NAME or timm:NAME.
        weights: local weights of the backbone, a safetensors file; nothing is downloaded.
        device: device to compute on.
        seed: seed of all random numbers.
        val_share: share of the images held out for sppnet evaluate where the data have no splits; 0.2 when
            left out, 0 fits on all images.
        skip_bad: skip damaged images instead of stopping with the list of them.
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
    config: ConfigFile = None
    json: bool = False
    overwrite: bool = False


def run(words: list[str]) -> int:
    """Run a job."""
    return run_job("fit", JOBS, words, "DATA --out RUN ...")


def fit_and_save(estimator: Estimator[Any], flags: FitFlags) -> int:
    """Fit, write the run and print a summary.

    Raises:
        UserError: an OUT that may not be written, found before any work is done, or what fitting finds.
    """
    from sppnet.runs import append_log, lock_run

    estimator.check_params()
    with lock_run(flags.out, overwrite=flags.overwrite), opened_screen(json=flags.json) as screen:
        estimator.fit(flags.data, flags.split, layout=flags.format, skip_bad=flags.skip_bad)
        estimator.save(flags.out, overwrite=flags.overwrite)
        learned = {
            "run": flags.out,
            "data": flags.data,
            "classes": list(estimator.names_),
            **estimator.summary_,
        }
        append_log(flags.out, {"verb": "fit", **learned})
        screen.table(f"{flags.out}: {len(estimator.names_)} classes", ("", "value"), summary_rows(learned))
        for note in estimator.summary_["notes"]:
            screen.say(f"Note: {note}")
        screen.say(f"Next: sppnet evaluate {flags.out} DATA, or sppnet predict {flags.out} IMAGE")
        screen.document(learned)
    return 0

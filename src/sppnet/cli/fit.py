"""``sppnet fit detect | classify``: linear heads on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sppnet.cli.estimators import Device
from sppnet.cli.flags import ConfigFile
from sppnet.cli.jobs import run_job
from sppnet.cli.screen import opened_screen, summary_rows

if TYPE_CHECKING:
    from sppnet.classify import Classifier
    from sppnet.detect import Detector

__all__ = ["JOBS", "FitFlags", "fit_and_save", "run"]

JOBS = {
    "detect": "SVMs and box regressors on windows of images with boxes (VOC, COCO, YOLO)",
    "classify": "linear SVM on whole images (class folders)",
}


@dataclass(frozen=True)
class FitFlags:
    """What both jobs take.

    Attributes:
        data: a folder of labelled images; its layout is recognised by looking.
        out: the run folder to write.
        split: which part of the data to learn from; the part for training when left out.
        format: the layout of the data, where looking is not enough: voc, coco, yolo or folders.
        backbone: builtin, lite0, lite2, torchvision:NAME or timm:NAME.
        weights: local weights of the backbone, a safetensors file; nothing is downloaded then.
        device: where to compute.
        seed: of everything random.
        val_share: share of the images of a data set without splits that is held out for sppnet evaluate; 0.2
            when left out, 0 fits on all images.
        skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
        config: a TOML file with values for these flags; flags on the command line win.
        json: one JSON document on stdout, everything else on stderr.
        overwrite: replace the run that is in OUT.
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    out: Path
    split: str | None = None
    format: str | None = None
    backbone: str = "builtin"
    weights: Path | None = None
    device: Device = "auto"
    seed: int = 0
    val_share: float | None = None
    skip_bad: bool = False
    config: ConfigFile = None
    json: bool = False
    overwrite: bool = False


def run(words: list[str]) -> int:
    """Dispatch on the job."""
    return run_job("fit", JOBS, words, "DATA --out RUN ...")


def fit_and_save(estimator: Detector | Classifier, flags: FitFlags) -> int:
    """Fit, write the run and say what was learned from.

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

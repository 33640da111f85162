"""``sppnet export``: a run as one ONNX file for images of any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sppnet.cli.flags import UsageError, read_flags
from sppnet.cli.screen import opened_screen

__all__ = ["ExportFlags", "run"]

_CALIBRATION_IMAGES = 100


@dataclass(frozen=True)
class ExportFlags:
    """Export a run as one ONNX file for images of any size; `sppnet.runtime` runs it without torch.

    Attributes:
        run: a folder that sppnet fit wrote.
        out: the file to write, ending in .onnx, or in .pt2 with --format torch.
        part: the whole estimator, its features of a whole image, or of given boxes.
        precision: of the network.
        format: onnx, or a program of torch.export.
        calibration: a folder of images that set the ranges of int8, at most 100 of them.
        data: labelled images to measure the exported model on, beside the run itself.
        split: which part of the data; the part for evaluation when left out.
        json: one JSON document on stdout, everything else on stderr.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    out: Path
    part: Literal["all", "features", "box-features"] = "all"
    precision: Literal["float32", "float16", "int8"] = "float32"
    format: Literal["onnx", "torch"] = "onnx"
    calibration: Path | None = None
    data: Path | None = None
    split: str | None = None
    json: bool = False


def run(words: list[str]) -> int:
    """Export, measure where there are data, and say what was written."""
    flags = read_flags(ExportFlags, "sppnet export", words)
    if (flags.calibration is not None) != (flags.precision == "int8"):
        raise UsageError("sppnet export", "--calibration and --precision int8 go together")
    with opened_screen(json=flags.json) as screen:
        from sppnet.data import find_images
        from sppnet.estimators import load
        from sppnet.export import evaluate_export, export_estimator, export_program

        estimator = load(flags.run, "cpu")
        if flags.format == "torch":
            path = export_program(estimator, flags.out, part=flags.part)
        else:
            images = [] if flags.calibration is None else find_images([flags.calibration])
            step = max(1, len(images) // _CALIBRATION_IMAGES)
            path = export_estimator(
                estimator,
                flags.out,
                part=flags.part,
                precision=flags.precision,
                calibration=images[::step][:_CALIBRATION_IMAGES],
            )
        measured = {} if flags.data is None else evaluate_export(estimator, path, flags.data, flags.split)
        screen.say(f"Written: {path}, {path.stat().st_size / 2**20:.1f} MB")
        if measured:
            rows = [(name, f"{run:.4f}", f"{export:.4f}") for name, (run, export) in measured.items()]
            screen.table("accuracy", ("metric", "run", "export"), rows)
        screen.document({"path": str(path), "bytes": path.stat().st_size, "accuracy": measured})
    return 0

"""``sppnet export``: write a run as one ONNX file for images of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from sppnet.cli.flags import UsageError, read_flags
from sppnet.cli.paths import InputFolder, OptionalDataPath, OutFile, RunPath, check_extra
from sppnet.cli.screen import opened_screen

__all__ = ["ExportFlags", "run"]

_CALIBRATION_IMAGES = 100


@dataclass(frozen=True)
class ExportFlags:
    """Export a run as one ONNX file for images of any size; `sppnet.runtime` runs it without torch.

    Attributes:
        run: run folder of sppnet fit or sppnet train.
        out: file to write, ending in .onnx, or in .pt2 with --format torch.
        part: the whole estimator, the features of a whole image, or the features of given boxes.
        precision: precision of the network.
        format: onnx, or torch for a program of torch.export.
        calibration: folder of images to calibrate int8; at most 100 are used.
        data: labelled images on which the exported model is compared with the run.
        split: split of the data; the test or validation split by default.
        json: print one JSON document on stdout and everything else on stderr.
    """

    run: Annotated[RunPath, tyro.conf.Positional]
    out: OutFile
    part: Literal["all", "features", "box-features"] = "all"
    precision: Literal["float32", "float16", "int8"] = "float32"
    format: str = "onnx"
    calibration: InputFolder = None
    data: OptionalDataPath = None
    split: str | None = None
    json: bool = False


def run(words: list[str]) -> int:
    """Export, measure if data are given, and print the result."""
    flags = read_flags(ExportFlags, "sppnet export", words)
    if (flags.calibration is not None) != (flags.precision == "int8"):
        raise UsageError("sppnet export", "--calibration and --precision int8 require each other")
    if flags.format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            check_extra(package, "export", "export to ONNX")
    with opened_screen(json=flags.json) as screen:
        from sppnet.data import find_images
        from sppnet.estimators import load
        from sppnet.export import evaluate_export
        from sppnet.export.targets import ExportOptions, find_target

        target = find_target(flags.format)
        estimator = load(flags.run, "cpu")
        images = [] if flags.calibration is None else find_images([flags.calibration])
        step = max(1, len(images) // _CALIBRATION_IMAGES)
        options = ExportOptions(flags.part, flags.precision, images[::step][:_CALIBRATION_IMAGES])
        path = target(estimator, flags.out, options)
        measured = {} if flags.data is None else evaluate_export(estimator, path, flags.data, flags.split)
        screen.say(f"Written: {path}, {path.stat().st_size / 2**20:.1f} MB")
        if measured:
            rows = [(name, f"{run:.4f}", f"{export:.4f}") for name, (run, export) in measured.items()]
            screen.table("accuracy", ("metric", "run", "export"), rows)
        screen.document({"path": str(path), "bytes": path.stat().st_size, "accuracy": measured})
    return 0

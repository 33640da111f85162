"""``sppnet predict``: drawn images and predictions for images, folders and globs."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from sppnet.cli.estimators import Device
from sppnet.cli.flag_table import ADVANCED
from sppnet.cli.flags import UsageError, read_flags
from sppnet.cli.limits import pixel_limit
from sppnet.cli.paths import InputFile, OutFolder, RunPath, check_sources
from sppnet.cli.screen import Screen, opened_screen
from sppnet.cli.tiles import use_tiles
from sppnet.cli.videos import predict_videos, split_sources
from sppnet.errors import UserError, visible
from sppnet.locks import locked
from sppnet.progress import track

if TYPE_CHECKING:
    from sppnet.cli.outputs import PredictionFolder
    from sppnet.estimators import Estimator

__all__ = ["PredictFlags", "draw_images", "run"]

_LOCK = ".sppnet-predictions.lock"
_DOCUMENT = "predictions.json"
_FORMATS = {"coco": "predictions.coco.json", "csv": "predictions.csv"}


@dataclass(frozen=True)
class PredictFlags:
    """Predict on images and videos; write drawn images, predictions.jsonl and predictions.json.

    A line is added to predictions.jsonl when an image is finished. After an interruption, the same command
    resumes. Files that sppnet predict did not write are never replaced. One process at a time writes to OUT.
    An image that cannot be read is reported on stderr and skipped; the exit code is then 2.

    Attributes:
        run: run folder of sppnet fit or sppnet train.
        sources: images, videos, folders and globs; camera:N for a camera.
        out: folder for the drawn images and the predictions.
        formats: further files with the predictions of a detector: coco (COCO results), csv.
        images: COCO JSON file with image and category ids for the COCO results; detected if SOURCE is in a
            COCO data set. Without it, image ids are file names.
        threshold: minimum score of a prediction.
        restart: replace the files of earlier calls in OUT.
        max_megapixels: maximum size of images; 179 by default, the limit of Pillow.
        every: use every N-th frame of a video.
        allow_download: download sources that are http or https URLs.
        tile: maximum side of the tiles of an image, in pixels; 0 for no tiles. Default: the value of the run.
        overlap: overlap of neighbouring tiles as a fraction of their side.
        device: device to compute on.
        json: print one JSON document on stdout and everything else on stderr.
    """

    run: Annotated[RunPath, tyro.conf.Positional]
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    out: OutFolder = Path("predictions")
    formats: tuple[Literal["coco", "csv"], ...] = ()
    images: Annotated[InputFile, ADVANCED] = None
    threshold: float | None = None
    restart: Annotated[bool, tyro.conf.arg(aliases=("--overwrite",))] = False
    max_megapixels: Annotated[float | None, ADVANCED] = None
    every: int = 1
    allow_download: bool = False
    tile: int | None = None
    overlap: float | None = None
    device: Device = "auto"
    json: bool = False


def run(words: list[str]) -> int:
    """Predict, draw and write; return 2 if an image was skipped."""
    flags = read_flags(PredictFlags, "sppnet predict", words)
    if not flags.sources:
        raise UsageError("sppnet predict", "Missing from sppnet predict: SOURCE...")
    check_sources(flags.sources)
    with (
        opened_screen(json=flags.json) as screen,
        pixel_limit(flags.max_megapixels),
        locked(flags.out, create=True, name=_LOCK),
    ):
        return _predict(flags, screen)


def _predict(flags: PredictFlags, screen: Screen) -> int:
    from sppnet.cli.outputs import PredictionFolder
    from sppnet.data import find_images
    from sppnet.data.coco_ids import read_coco_ids
    from sppnet.estimators import load
    from sppnet.estimators.predicting import check_threshold
    from sppnet.runs import json_text

    sources, videos = split_sources(
        flags.sources, flags.out, every=flags.every, allow_download=flags.allow_download
    )
    given = None if flags.images is None else read_coco_ids(flags.images)
    check_threshold(flags.threshold)
    estimator = load(flags.run, flags.device)
    if flags.formats and not estimator.supports_boxes:
        raise UsageError("sppnet predict", "--formats is for the boxes of a detector; this is a classifier")
    use_tiles("sppnet predict", estimator, flags.tile, flags.overlap)
    images = find_images(sources) if sources else []
    names = [_DOCUMENT, *(_FORMATS[format] for format in flags.formats)]
    key = {
        "run": _digest(flags.run),
        "threshold": flags.threshold,
        "tile": flags.tile,
        "overlap": flags.overlap,
    }
    folder = PredictionFolder(flags.out, key, names, restart=flags.restart)
    failed = predict_images(estimator, images, folder, flags.threshold)
    filmed, unread = predict_videos(estimator, videos, folder, every=flags.every, threshold=flags.threshold)
    failed |= unread
    lines = {path: line for path in images if (line := folder.line_of(path)) is not None}
    document: dict[str, object] = {
        "run": flags.run,
        "out": flags.out,
        "images": [_shown_line(line) for line in lines.values()],
        "videos": filmed,
        "failed": [{"path": path, "error": str(error)} for path, error in failed.items()],
    }
    folder.write(_DOCUMENT, json_text(document).encode("utf-8", "backslashreplace"))
    if flags.formats:
        _write_formats(flags, folder, lines, estimator, given)
    _show(screen, lines, estimator.names_)
    for video in filmed:
        screen.say(f"{video['frames']} frames of {video['path']} drawn in {video['drawn']}")
    screen.say(f"{len(lines)} images drawn in {flags.out}, {len(failed)} left out")
    screen.document(document)
    return 2 if failed else 0


def predict_images(
    estimator: Estimator[Any], images: list[Path], folder: PredictionFolder, threshold: float | None
) -> dict[Path, UserError]:
    """Predict on each image without a result, draw it and add its line.

    Returns:
        The errors of images that cannot be read, which are also printed on stderr.

    Raises:
        UserError: the folder is not writable; finished results remain.
    """
    from sppnet.draw import encode_image
    from sppnet.estimators import FailedPrediction

    folder.name_drawings(images)
    pending = [path for path in images if folder.line_of(path) is None]
    if len(pending) < len(images):
        print(f"sppnet: {len(images) - len(pending)} of {len(images)} images were done", file=sys.stderr)
    failed: dict[Path, UserError] = {}
    results = estimator.predict_iter(pending, threshold=threshold)
    found = track(results, "images", len(pending), quiet=len(pending) < 2)
    for path, result in zip(pending, found, strict=True):
        error = result.error
        if not isinstance(result, FailedPrediction):
            name = folder.drawn[path]
            try:
                content = encode_image(name, result.plot())
            except UserError as fault:  # the file changed meanwhile, or is too large to draw
                error = fault
            else:
                drawn = folder.write(name, content)
                folder.add(path, {"path": path, "drawn": drawn, **result.to_record()})
        if error is not None:
            failed[path] = error
            print(f"sppnet: {error}", file=sys.stderr)
            folder.add_failure(path, error)
    return failed


def draw_images(estimator: Estimator[Any], images: list[Path], out: Path) -> list[Path]:
    """Predict on images, draw the results into a folder and return the paths of the drawn images."""
    from sppnet.cli.outputs import free_names

    drawn: list[Path] = []
    names = free_names(images, os.listdir(out) if out.exists() else ())
    for path in track(images, "images"):
        result = estimator.predict_one(path)
        drawn.append(result.save(out / names[path]))
    return drawn


def _digest(run: Path) -> str:
    """Return a digest of a run, without its metrics and log."""
    digest = hashlib.sha256()
    for name in ("config.toml", "model.json", "model.safetensors"):
        with (run / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _shown_line(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("exact", "file")}


def _write_formats(
    flags: PredictFlags,
    folder: PredictionFolder,
    lines: Mapping[Path, Mapping[str, Any]],
    estimator: Any,
    given: Any,
) -> None:
    from sppnet.cli.formats import coco_ids_of, detections_of, image_ids_of
    from sppnet.data.writers import predictions_text

    found = [(path, detections_of(line, estimator.names_)) for path, line in lines.items()]
    for format in flags.formats:
        if format == "coco":
            ids = given if given is not None else coco_ids_of(flags.sources)
            categories = ids.category_ids(estimator.names_) or estimator.category_ids_
            text = predictions_text(found, format, categories, image_ids_of(ids, list(lines)))
        else:
            text = predictions_text(found, format)
        folder.write(_FORMATS[format], text.encode("utf-8", "backslashreplace"))


def _show(screen: Screen, lines: Mapping[Path, Mapping[str, Any]], names: tuple[str, ...]) -> None:
    from sppnet.draw import undrawable_names
    from sppnet.estimators.results import record_entries

    rows: list[tuple[object, ...]] = []
    for path, line in lines.items():
        found = record_entries(line)
        best = [f"{one['name']} {one['score']:.2f}" for one in found[:5]]
        rows.append((path.name, len(found), ", ".join(best)))
    screen.table("found", ("image", "labels", "best"), rows)
    legend = undrawable_names(names)
    if legend:
        listed = ", ".join(f"#{number} = {visible(name)}" for number, name in legend.items())
        screen.say(f"No installed font has the letters of some names; drawn as numbers: {listed}")

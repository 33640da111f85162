"""``sppnet predict``: drawn images and predictions for images, folders and globs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sppnet.cli.estimators import Device, load_estimator
from sppnet.cli.flags import UsageError, read_flags
from sppnet.cli.screen import Screen, opened_screen
from sppnet.cli.tiles import use_tiles
from sppnet.cli.videos import predict_videos, split_sources
from sppnet.errors import UserError
from sppnet.progress import track
from sppnet.runs import json_text, replace_text

if TYPE_CHECKING:
    from sppnet.classify import ClassificationResult
    from sppnet.cli.estimators import Estimator
    from sppnet.detect import DetectionResult

    Result = DetectionResult | ClassificationResult

__all__ = ["PredictFlags", "free_names", "predict_images", "run"]


@dataclass(frozen=True)
class PredictFlags:
    """Predict on images, write them with what was found drawn on them, and predictions.json.

    An image that cannot be read is named on stderr and left out; the exit code is 2 then.

    Attributes:
        run: a folder that sppnet fit wrote.
        sources: images, videos, folders and globs; camera:N for a camera.
        out: where the drawn images and the predictions go.
        formats: further files with the predictions of a detector: coco (COCO results), csv.
        threshold: leave out what scores below it.
        every: of a video, only every so many-th frame.
        allow_download: fetch sources that are URLs of http or https.
        tile: cut images into tiles of at most this side, in pixels; 0 takes them whole. As in fitting when
            left out.
        overlap: share of a tile that the next one repeats.
        device: where to compute.
        json: one JSON document on stdout, everything else on stderr.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    out: Path = Path("predictions")
    formats: tuple[Literal["coco", "csv"], ...] = ()
    threshold: float | None = None
    every: int = 1
    allow_download: bool = False
    tile: int | None = None
    overlap: float | None = None
    device: Device = "auto"
    json: bool = False


def run(words: list[str]) -> int:
    """Predict, draw and write; 2 when an image had to be left out."""
    flags = read_flags(PredictFlags, "sppnet predict", words)
    with opened_screen(json=flags.json) as screen:
        from sppnet.data import find_images, write_predictions
        from sppnet.detect import DetectionResult, Detector
        from sppnet.detect.paper import PaperDetector

        if not flags.sources:
            raise UsageError("sppnet predict", "Missing from sppnet predict: SOURCE...")
        estimator = load_estimator(flags.run, flags.device)
        use_tiles("sppnet predict", estimator, flags.tile, flags.overlap)
        if flags.formats and not isinstance(estimator, (Detector, PaperDetector)):
            raise UsageError(
                "sppnet predict", "--formats is for the boxes of a detector; this is a classifier"
            )
        sources, videos = split_sources(
            flags.sources, flags.out, every=flags.every, allow_download=flags.allow_download
        )
        images = find_images(sources) if sources else []
        found, failed = predict_images(estimator, images, flags.out, flags.threshold)
        filmed, unread = predict_videos(
            estimator, videos, flags.out, every=flags.every, threshold=flags.threshold
        )
        failed |= unread
        document = {
            "run": flags.run,
            "out": flags.out,
            "images": [
                {"path": path, "drawn": drawn, **result.to_dict()} for path, (drawn, result) in found.items()
            ],
            "videos": filmed,
            "failed": [{"path": path, "error": str(error)} for path, error in failed.items()],
        }
        replace_text(flags.out / "predictions.json", json_text(document))
        boxes = [(path, r.detections) for path, (_, r) in found.items() if isinstance(r, DetectionResult)]
        for format in flags.formats:
            name = "predictions.coco.json" if format == "coco" else f"predictions.{format}"
            write_predictions(flags.out / name, boxes, format)
        _show(screen, found)
        for video in filmed:
            screen.say(f"{video['frames']} frames of {video['path']} drawn in {video['drawn']}")
        screen.say(f"{len(found)} images drawn in {flags.out}, {len(failed)} left out")
        screen.document(document)
    return 2 if failed else 0


def predict_images(
    estimator: Estimator, images: list[Path], out: Path, threshold: float | None = None
) -> tuple[dict[Path, tuple[Path, Result]], dict[Path, UserError]]:
    """Predict on each image and draw it into ``out``; what cannot be read is said on stderr.

    Returns:
        the drawn image and the result of every image, and the errors of those left out.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(out, "a folder that can be written", error.strerror or error) from error
    names = free_names(images)
    found: dict[Path, tuple[Path, Result]] = {}
    failed: dict[Path, UserError] = {}
    for path in track(images, "images", quiet=len(images) < 2):
        try:
            result = estimator.predict(path, threshold=threshold)
        except UserError as error:
            failed[path] = error
            print(f"sppnet: {error}", file=sys.stderr)
            continue
        assert not isinstance(result, list)
        result.save(out / names[path])
        found[path] = (out / names[path], result)
    return found, failed


def free_names(images: list[Path]) -> dict[Path, str]:
    """A file name for each drawn image: its own with .jpg, and a number where that is taken."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in images:
        name, number = f"{path.stem}.jpg", 1
        while name.lower() in taken:
            number += 1
            name = f"{path.stem}-{number}.jpg"
        taken.add(name.lower())
        names[path] = name
    return names


def _show(screen: Screen, found: dict[Path, tuple[Path, Result]]) -> None:
    rows: list[tuple[object, ...]] = []
    for path, (_, result) in found.items():
        best = [
            f"{result.names[label]} {score:.2f}"
            for label, score in zip(result.labels.tolist(), result.scores.tolist(), strict=True)
        ]
        rows.append((path.name, len(best), ", ".join(best[:5])))
    screen.table("found", ("image", "labels", "best"), rows)

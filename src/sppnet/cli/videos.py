"""Videos and cameras among the sources of ``sppnet predict``."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.errors import UserError
from sppnet.files import append_line, remove, write_text
from sppnet.inputs.sources import expand_glob, is_camera, is_video
from sppnet.progress import track

if TYPE_CHECKING:
    from sppnet.cli.outputs import PredictionFolder
    from sppnet.data.video import Frame, VideoReader
    from sppnet.estimators import Estimator

__all__ = ["predict_videos", "split_sources"]


def split_sources(
    sources: Sequence[str], out: Path, *, every: int = 1, allow_download: bool = False
) -> tuple[list[str], list[str]]:
    """Download URLs into ``out/downloads``, and separate images from videos and cameras.

    Videos that ``sppnet predict`` drew are not used.

    Returns:
        Paths and globs of images; videos and cameras.

    Raises:
        UserError: a download is not permitted or fails, ``every`` is below 1, or all sources are videos that
            ``sppnet predict`` drew.
    """
    from sppnet.data.search import is_output
    from sppnet.data.sources import local_sources

    if every < 1:
        raise UserError("--every", "at least 1", every)
    images: list[str] = []
    videos: list[str] = []
    for source in local_sources(sources, out / "downloads", allow_download=allow_download):
        if glob.has_magic(source) and not Path(source).exists():
            found = sorted(filter(is_video, expand_glob(source)))
            videos += found
            # A glob that matches only videos is valid, one without any matches is not.
            if not found or not is_video(source):
                images.append(source)
        else:
            (videos if is_video(source) else images).append(source)
    known: dict[Path, dict[str, dict[str, Any]]] = {}
    used = [video for video in dict.fromkeys(videos) if is_camera(video) or not is_output(Path(video), known)]
    if not used and not images:
        raise UserError("sources", "at least one image or video", "only outputs of sppnet predict")
    return images, used


def predict_videos(
    estimator: Estimator[Any],
    videos: Sequence[str],
    folder: PredictionFolder,
    *,
    every: int = 1,
    threshold: float | None = None,
) -> tuple[list[dict[str, Any]], dict[Path, UserError]]:
    """Predict on the frames of videos; write the drawn frames, and a JSON line per frame.

    ``NAME.jsonl`` has the path of the video, number and time of the frame and the result in each line;
    ``NAME.mp4`` has the drawn frames. Existing files of other origin are not replaced: a number is added to
    the name. A camera is read until the process is interrupted.

    Args:
        estimator: a fitted detector or classifier.
        videos: videos and cameras, from `split_sources`.
        folder: the output folder; the caller holds its lock.
        every: use every n-th frame.
        threshold: minimum score.

    Returns:
        Path, drawn video, JSON file and number of frames of each video; the errors of videos that could not
        be read completely, which are also printed on stderr.

    Raises:
        UserError: a file is not writable.
    """
    from sppnet.data.video import VideoReader

    written: list[dict[str, Any]] = []
    failed: dict[Path, UserError] = {}
    taken: set[Path] = set()
    for video in videos:
        try:
            reader = VideoReader(video, every)
        except UserError as error:
            failed[Path(video)] = error
        else:
            with reader:
                drawn, lines = _free_targets(video, folder, taken)
                count, error = _predict_video(estimator, reader, folder, drawn, lines, threshold)
            if count:
                written.append({"path": video, "drawn": drawn, "lines": lines, "frames": count})
            else:
                remove(lines)
            if error is not None:
                failed[Path(video)] = error
        if Path(video) in failed:
            print(f"sppnet: {failed[Path(video)]}", file=sys.stderr)
    return written, failed


def _predict_video(
    estimator: Estimator[Any],
    reader: VideoReader,
    folder: PredictionFolder,
    drawn: Path,
    lines: Path,
    threshold: float | None,
) -> tuple[int, UserError | None]:
    """Process a video; return the number of frames, and the error that stopped it, if any."""
    import numpy as np

    from sppnet.data.video import VideoWriter

    count = 0
    error: UserError | None = None
    remove(lines)
    with VideoWriter(drawn, reader.rate, lambda written: folder.record_file(drawn.name, written)) as video:
        try:
            for frame in _until_error(track(reader, Path(reader.source).name, reader.count)):
                if isinstance(frame, UserError):
                    error = frame
                    break
                result = estimator.predict_one(frame.pixels, threshold=threshold)
                line = _line(reader.source, frame, result.to_dict())
                if count:
                    append_line(lines, line)
                else:  # in one step, because the first line of a file identifies its source
                    write_text(lines, f"{line}\n")
                video.write(np.asarray(result.plot().convert("RGB")))
                count += 1
        except KeyboardInterrupt:
            if not is_camera(reader.source):
                raise
    return count, error


def _until_error(frames: Iterator[Frame]) -> Iterator[Frame | UserError]:
    """Yield the frames and, if the source is damaged, the error."""
    try:
        yield from frames
    except UserError as error:
        yield error


def _line(source: str, frame: Frame, result: dict[str, Any]) -> str:
    seconds = None if frame.seconds is None else round(frame.seconds, 6)
    content = {"path": _text(source), "frame": frame.number, "seconds": seconds, **result}
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def _text(source: str) -> str:
    return source.encode("utf-8", "backslashreplace").decode()


def _free_targets(source: str, folder: PredictionFolder, taken: set[Path]) -> tuple[Path, Path]:
    """Return paths of the drawn video and the JSON file that are unused or belong to the same source."""
    from sppnet.cli.outputs import plain_stem

    stem = source.replace(":", "-") if is_camera(source) else plain_stem(Path(source))
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        drawn, lines = folder.out / f"{name}.mp4", folder.out / f"{name}.jsonl"
        free = not os.path.lexists(drawn) or folder.is_ours(drawn.name)
        if lines not in taken and free and (not os.path.lexists(lines) or _is_ours(lines, source)):
            taken.add(lines)
            return drawn, lines
        number += 1


def _is_ours(lines: Path, source: str) -> bool:
    """Return whether a JSON file was written for the same source."""
    if lines.is_symlink():
        return False
    try:
        with lines.open(encoding="utf-8") as stream:
            first: Any = json.loads(stream.readline())
        return first["path"] == _text(source) and "frame" in first
    except (OSError, ValueError, KeyError, TypeError):
        return False

"""Read frames of video files and cameras, and write videos."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from sppnet.data.images import Pixels
from sppnet.errors import MissingExtraError, UserError
from sppnet.files import new_temporary, remove, rename
from sppnet.inputs.sources import CAMERA, is_camera

_CODECS = ("libx264", "libopenh264", "mpeg4")
_RATE = Fraction(25)
_LARGEST_NUMERATOR = 65_535  # of a frame rate, in MPEG-4


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        number: its index in the video, from 0.
        seconds: its time in the video; None if unknown.
        pixels: uint8 ``[H, W, 3]``, RGB, upright.
    """

    number: int
    seconds: float | None
    pixels: Pixels


class VideoReader:
    """Iterate over the frames of a video file or camera; a context manager.

    Args:
        source: a path, or ``camera:N`` for the N-th camera of the machine.
        every: step between the frames that are yielded.

    Attributes:
        rate: yielded frames per second of the video.
        count: approximate number of yielded frames; None if unknown.

    Raises:
        UserError: the file or camera is missing or not a video, or ``every`` is below 1.
        MissingExtraError: PyAV is not installed.

    Examples:
        ::

            with VideoReader("tour.mp4", every=5) as frames:
                results = [detector.predict(frame.pixels) for frame in frames]
    """

    def __init__(self, source: str | os.PathLike[str], every: int = 1) -> None:
        if every < 1:
            raise UserError("every", "at least 1", every)
        self.source = os.fspath(source)
        self.every = every
        av = _av()
        camera = CAMERA.fullmatch(self.source) if is_camera(source) else None
        if camera is None and not Path(source).is_file():
            raise UserError(source, "a video", "a folder" if Path(source).is_dir() else "no such file")
        name, format = (self.source, None) if camera is None else camera_input(int(camera[1] or 0))
        with _reported(self.source, "a camera" if camera else "a video"):
            self._container: Any = av.open(name, format=format)
        try:
            streams = self._container.streams.video
            if not streams:
                raise UserError(source, "a video", "a file without a video stream")
            self._stream: Any = streams[0]
            self._stream.thread_type = "AUTO"
        except BaseException:
            self._container.close()
            raise
        self.rate = Fraction(self._stream.average_rate or _RATE) / every
        self.count: int | None = -(-self._stream.frames // every) if self._stream.frames else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; a damaged video raises `UserError` after its intact frames."""
        frames = self._container.decode(self._stream)
        number = 0
        while True:
            with _reported(self.source, "a video that decodes"):
                frame = next(frames, None)
                if frame is None:
                    break
                chosen = number % self.every == 0
                pixels = frame.to_ndarray(format="rgb24") if chosen else None
            if pixels is not None:
                # The angle is counterclockwise, like that of rot90.
                yield Frame(number, frame.time, np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90)))
            number += 1
        if not number:
            raise UserError(self.source, "a video with frames", "none")


class VideoWriter:
    """Write frames to an MP4 file, with H.264 if PyAV has an encoder for it; a context manager.

    The file is renamed to its final name when the context ends without an error.

    Args:
        path: the file; its folder must exist.
        rate: frames per second.
        finished: called with the complete temporary file before it is renamed to ``path``.

    Raises:
        MissingExtraError: PyAV is not installed.
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path, rate: Fraction, finished: Callable[[Path], object] | None = None) -> None:
        self.path = path
        self.finished = finished
        self.rate = rate.limit_denominator(1001)
        if not 0 < self.rate.numerator <= _LARGEST_NUMERATOR:
            self.rate = Fraction(max(1, round(rate)))
        av = _av()
        if not path.parent.is_dir():
            raise UserError(path, "a file that can be written", "no such folder")
        self._part = new_temporary(path)
        try:
            with _reported(path, "a file that can be written"):
                self._container: Any = av.open(str(self._part), "w", format="mp4")
        except UserError:
            remove(self._part)
            raise
        self._stream: Any = None

    def __enter__(self) -> Self:
        return self

    def write(self, pixels: Pixels) -> None:
        """Add a frame, uint8 ``[H, W, 3]``; frames are cropped or padded to the size of the first one."""
        av = _av()
        if self._stream is None:
            codec = next(name for name in _CODECS if name in av.codecs_available and _encodes(name))
            self._stream = self._container.add_stream(codec, rate=self.rate)
            # Chroma has half the resolution, so that the sides must be even.
            self._stream.height, self._stream.width = (side + side % 2 for side in pixels.shape[:2])
            self._stream.pix_fmt = "yuv420p"
        canvas = np.zeros((self._stream.height, self._stream.width, 3), np.uint8)
        height, width = (min(a, b) for a, b in zip(canvas.shape[:2], pixels.shape[:2], strict=True))
        canvas[:height, :width] = pixels[:height, :width]
        with _reported(self.path, "a file that can be written"):
            self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(canvas, format="rgb24")))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with _reported(self.path, "a file that can be written"):
                if self._stream is not None:
                    self._container.mux(self._stream.encode())
                self._container.close()
            if self._stream is not None and kind is None:
                if self.finished is not None:
                    self.finished(self._part)
                rename(self._part, self.path)
        finally:
            remove(self._part)


def camera_input(number: int, platform: str = sys.platform) -> tuple[str, str]:
    """Return the name and the FFmpeg input format of a camera.

    Examples:
        >>> camera_input(1, "linux"), camera_input(0, "darwin")
        (('/dev/video1', 'v4l2'), ('0', 'avfoundation'))
    """
    if platform == "darwin":
        return str(number), "avfoundation"
    if platform == "win32":
        return f"video={number}", "dshow"
    return f"/dev/video{number}", "v4l2"


@contextmanager
def _reported(where: object, expected: str) -> Generator[None]:
    """Turn errors of FFmpeg and of the system into `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(where, expected, error.strerror or error) from error
    except _av().FFmpegError as error:
        raise UserError(where, expected, error.strerror or error) from error


def _encodes(codec: str) -> bool:
    av = _av()
    try:
        return bool(av.Codec(codec, "w").is_encoder)
    except av.FFmpegError:
        return False
    except ValueError:  # PyAV raises it for a codec that can only decode
        return False


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtraError("av", "video", "videos and cameras") from error

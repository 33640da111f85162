"""What a source is by its name: a URL, a camera, a video or a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

VIDEO_ENDINGS = (
    ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
"""The file endings, in lower case, that are read as videos."""

CAMERA = re.compile(r"camera(?::(\d+))?")
"""The name of a camera; its number is the group."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_camera(source: str | os.PathLike[str]) -> bool:
    """Return whether a source is ``camera`` or ``camera:N``, and no file of that name."""
    return CAMERA.fullmatch(os.fspath(source)) is not None and not Path(source).exists()


def is_video(source: str | os.PathLike[str]) -> bool:
    """Return whether a source is a camera, or a path with one of `VIDEO_ENDINGS`.

    Examples:
        >>> is_video("tour.MP4"), is_video("camera:1"), is_video("photo.jpg")
        (True, True, False)
    """
    return is_camera(source) or Path(source).suffix.lower() in VIDEO_ENDINGS


def is_url(source: str | os.PathLike[str]) -> bool:
    """Return whether a source has the form ``scheme://...``.

    Examples:
        >>> is_url("https://example.org/a.jpg"), is_url("photos/a.jpg"), is_url("C:/a.jpg")
        (True, False, False)
    """
    return isinstance(source, str) and _URL.match(source) is not None

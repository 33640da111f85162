"""What a source is by its name: a URL, a camera, a video or a file."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
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


def expand_glob(pattern: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the paths that match a glob; ``**`` does not follow symbolic links, which may form cycles.

    Args:
        pattern: a pattern as for `glob.glob`; ``~`` is the home folder. ``**`` skips hidden folders.

    Examples:
        >>> folder = getfixture("tmp_path")
        >>> (folder / "a").mkdir()
        >>> (folder / "a" / "b.jpg").touch()
        >>> [os.path.basename(path) for path in expand_glob(folder / "**" / "*.jpg")]
        ['b.jpg']
    """
    seen: set[str] = set()
    for path in _expanded(os.path.expanduser(os.fspath(pattern))):
        if path not in seen:
            seen.add(path)
            yield path


def _expanded(pattern: str) -> Iterator[str]:
    head, found, tail = _at_recursion(pattern)
    if not found:
        yield from glob.iglob(pattern)
        return
    for base in glob.iglob(head) if head else ("",):
        for here, folders, names in os.walk(base or os.curdir):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            place = os.path.relpath(here) if not base else here
            place = "" if place == os.curdir else place
            if tail:
                yield from _expanded(os.path.join(glob.escape(place), tail))
            else:
                yield from (os.path.join(place, name) for name in sorted(names) if not name.startswith("."))


def _at_recursion(pattern: str) -> tuple[str, bool, str]:
    """Split a glob at the first component ``**``; return the parts and whether there is one."""
    parts = re.split(r"([/\\\\])" if os.sep == "\\" else "(/)", pattern)
    if "**" not in parts[::2]:
        return pattern, False, ""
    first = parts.index("**")
    return "".join(parts[: max(0, first - 1)]) or "".join(parts[:first]), True, "".join(parts[first + 2 :])


def is_url(source: str | os.PathLike[str]) -> bool:
    """Return whether a source has the form ``scheme://...``.

    Examples:
        >>> is_url("https://example.org/a.jpg"), is_url("photos/a.jpg"), is_url("C:/a.jpg")
        (True, False, False)
    """
    return isinstance(source, str) and _URL.match(source) is not None

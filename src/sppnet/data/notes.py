"""Notes on files that a reader skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from sppnet.inputs.words import plural, shortened

OTHER_ENDINGS = (
    ".arw", ".avi", ".cr2", ".cr3", ".dcm", ".dds", ".dicom", ".dng", ".eps", ".exr", ".hdr", ".heic",
    ".heif", ".hif", ".ico", ".j2k", ".jp2", ".jpx", ".jxl", ".m4v", ".mkv", ".mov", ".mp4",
    ".nef", ".orf", ".pcx",
    ".pef", ".psb", ".psd", ".raf", ".raw", ".rw2", ".sgi", ".sr2", ".svg", ".tga", ".webm", ".wmf", ".xcf",
)  # fmt: skip
"""Extensions of unsupported images and videos, in lower case."""


def skipped(files: Iterable[Path]) -> tuple[str, ...]:
    """Return a note on images and videos of unsupported types; empty if there are none.

    Examples:
        >>> skipped([Path("a.HEIC"), Path("b.heic"), Path("c.jpg")])
        ('2 files of unsupported types left out (2 .heic)',)
    """
    counts = Counter(path.suffix.lower() for path in files if path.suffix.lower() in OTHER_ENDINGS)
    if not counts:
        return ()
    kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items()))
    return (f"{plural(sum(counts.values()), 'file')} of unsupported types left out ({kinds})",)


def counted(found: Sequence[Path | str], one: str, several: str, what: str) -> tuple[str, ...]:
    """Return a note that counts and lists files; empty if there are none.

    Examples:
        >>> counted([Path("x/a.jpg")], "image", "images", "without an annotation left out")
        ('1 image without an annotation left out: a.jpg',)
    """
    if not found:
        return ()
    names = [path.name if isinstance(path, Path) else path for path in found]
    return (f"{plural(len(found), one, several)} {what}: {shortened(names, most=3)}",)

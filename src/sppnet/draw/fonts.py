"""Fonts that contain the characters of a text: of Pillow, of matplotlib, or installed ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from PIL import ImageFont, features

from sppnet.errors import UserError, visible

FontFile: TypeAlias = tuple[str, int]
"""A font file and the index of the font in it; ``("", 0)`` is Pillow's own font."""

_OWN: FontFile = ("", 0)
_VARIABLE = "SPPNET_FONT"
_UNASSIGNED = "\U000f1234\U0010fffd"  # private use: fonts draw them as they draw missing characters
_KNOWN = {
    "linux": (
        "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
        "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
        "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
        "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
        "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
        "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
        "/usr/share/fonts/truetype/noto/NotoSansDevanagari-Regular.ttf",
        "/usr/share/fonts/truetype/noto/NotoSansArabic-Regular.ttf",
        "/usr/share/fonts/truetype/unifont/unifont.ttf",
    ),
    "darwin": (
        "/System/Library/Fonts/PingFang.ttc",
        "/System/Library/Fonts/Hiragino Sans GB.ttc",
        "/System/Library/Fonts/AppleSDGothicNeo.ttc",
        "/System/Library/Fonts/GeezaPro.ttc",
        "/System/Library/Fonts/Kohinoor.ttc",
        "/System/Library/Fonts/Supplemental/Arial Unicode.ttf",
        "/Library/Fonts/Arial Unicode.ttf",
    ),
    "win32": tuple(
        rf"C:\Windows\Fonts\{name}"
        for name in (
            "segoeui.ttf", "msyh.ttc", "simsun.ttc", "meiryo.ttc", "msgothic.ttc", "malgun.ttf",
            "nirmala.ttc", "nirmala.ttf", "arial.ttf",
        )
    ),
}  # fmt: skip


def font_of(points: float, text: str = "") -> Any:
    """Load a font of a size in pixels that contains all characters of ``text``, or else Pillow's font."""
    file, index = font_file(text) or _OWN
    if not file:
        return ImageFont.load_default(points)
    return ImageFont.truetype(file, round(points), index)


def font_file(text: str) -> FontFile | None:
    """Find the first font that contains every character of a text.

    The search order is the file named by the environment variable ``SPPNET_FONT``, the fonts of Pillow and
    matplotlib, common fonts of the system, and the fonts known to fontconfig. Scripts that are written
    from right to left or with joined letters require Pillow with raqm.

    Args:
        text: the text.

    Returns:
        The font file, or None if there is no such font or Pillow cannot shape the text.

    Raises:
        UserError: ``SPPNET_FONT`` does not name a font file.

    Examples:
        >>> font_file("cat 0.95")
        ('', 0)
    """
    return _font_file("".join(sorted(set(text))), os.environ.get(_VARIABLE, ""))


def drawn_name(name: str, label: int) -> str:
    """Return a class name as it is drawn: unchanged, or ``#label`` if no font contains its characters.

    Examples:
        >>> drawn_name("cat", 3)
        'cat'
    """
    return visible(name) if font_file(visible(name)) is not None else f"#{label}"


def undrawable_names(names: Sequence[str]) -> dict[int, str]:
    """Return the class names that are drawn as ``#label``, by label.

    Args:
        names: class names.

    Returns:
        The names that no font can draw, by class number.

    Examples:
        >>> undrawable_names(("cat", "dog"))
        {}
    """
    return {label: name for label, name in enumerate(names) if font_file(visible(name)) is None}


@lru_cache(maxsize=4096)
def _font_file(letters: str, chosen: str) -> FontFile | None:
    if _needs_shaping(letters) and not features.check("raqm"):
        return None
    if chosen and _load(chosen, 0) is None:
        raise UserError(_VARIABLE, "a readable font file", chosen)
    first = () if chosen else (_OWN,)
    for file in (*first, *_files(letters, chosen)):
        if _has(file, letters):
            return file
    return None


def _files(letters: str, chosen: str) -> Iterator[FontFile]:
    """Yield the candidate fonts in the search order."""
    if chosen:
        yield chosen, 0
        yield _OWN
    found = find_spec("matplotlib")
    if found is not None and found.origin is not None:
        yield str(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), 0
    for path in _KNOWN.get(sys.platform, ()):
        yield path, 0
    yield from _fontconfig(letters)


def _fontconfig(letters: str) -> list[FontFile]:
    """Return the fonts that contain all characters, by fontconfig; none if it is not installed."""
    program = shutil.which("fc-list")
    if program is None:
        return []
    codes = " ".join(f"{ord(letter):x}" for letter in letters)
    command = [program, "--format=%{file}\t%{index}\n", f":charset={codes}"]
    try:
        output = subprocess.run(command, capture_output=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    entries = sorted(line.split("\t") for line in os.fsdecode(output).splitlines() if line.count("\t") == 1)
    outlines = (".ttf", ".otf", ".ttc", ".otc")
    return [(file, int(index) & 0xFFFF) for file, index in entries if file.lower().endswith(outlines)]


def _has(file: FontFile, letters: str) -> bool:
    """Return whether a font draws every character differently from a missing one."""
    font = _load(*file)
    if font is None:
        return False
    missing = {_shape(font, letter) for letter in _UNASSIGNED}
    return not any(_shape(font, letter) in missing for letter in letters if not _is_invisible(letter))


@lru_cache(maxsize=64)
def _load(file: str, index: int) -> Any:
    """Load a font at a size at which glyphs differ; None if it is not readable."""
    if not file:
        return ImageFont.load_default(24)
    try:
        return ImageFont.truetype(file, 24, index)
    except (OSError, ValueError):
        return None


def _shape(font: Any, letter: str) -> tuple[tuple[int, int], bytes]:
    """Return the size and the pixels of a glyph."""
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _is_invisible(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) in ("Cf", "Mn", "Zs")


def _needs_shaping(letters: str) -> bool:
    """Return whether the text has scripts with joined letters, such as Arabic, Hebrew and Devanagari."""
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL")
        or 0x0900 <= ord(letter) <= 0x109F
        or 0x1780 <= ord(letter) <= 0x17FF
        for letter in letters
    )

"""A font that has the letters of a text: Pillow's own, matplotlib's, or one that is installed."""

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
_UNASSIGNED = "\U000f1234\U0010fffd"  # private use: what a font shows for letters that it lacks
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
    """A font in pixels that has the letters of ``text``; Pillow's own where none has."""
    file, index = font_file(text) or _OWN
    if not file:
        return ImageFont.load_default(points)
    return ImageFont.truetype(file, round(points), index)


def font_file(text: str) -> FontFile | None:
    """The first font that has every letter of a text; None where no font has, or Pillow cannot shape it.

    Looked at, in this order: the file that the environment's ``SPPNET_FONT`` names, Pillow's own font,
    matplotlib's, well-known fonts of the system, and what fontconfig finds. Scripts that are written from
    right to left or with joined letters need Pillow's raqm.

    Raises:
        UserError: ``SPPNET_FONT`` names no font.

    Examples:
        >>> font_file("cat 0.95")
        ('', 0)
    """
    return _font_file("".join(sorted(set(text))), os.environ.get(_VARIABLE, ""))


def drawn_name(name: str, label: int) -> str:
    """A class name as images show it: itself, or ``#label`` where no font has its letters.

    Examples:
        >>> drawn_name("cat", 3)
        'cat'
    """
    return visible(name) if font_file(visible(name)) is not None else f"#{label}"


def undrawable_names(names: Sequence[str]) -> dict[int, str]:
    """The names that images show as ``#label``, by label: the legend of the numbers.

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
        raise UserError(_VARIABLE, "a font file that can be read", chosen)
    own = () if chosen else (_OWN,)
    for file in (*own, *_files(letters, chosen)):
        if _has(file, letters):
            return file
    return None


def _files(letters: str, chosen: str) -> Iterator[FontFile]:
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
    """What fontconfig knows to have all letters; nothing where it is not installed."""
    program = shutil.which("fc-list")
    if program is None:
        return []
    codes = " ".join(f"{ord(letter):x}" for letter in letters)
    words = [program, "--format=%{file}\t%{index}\n", f":charset={codes}"]
    try:
        said = subprocess.run(words, capture_output=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = sorted(line.split("\t") for line in os.fsdecode(said).splitlines() if line.count("\t") == 1)
    outlines = (".ttf", ".otf", ".ttc", ".otc")
    return [(file, int(index) & 0xFFFF) for file, index in rows if file.lower().endswith(outlines)]


def _has(file: FontFile, letters: str) -> bool:
    font = _load(*file)
    if font is None:
        return False
    missing = {_shape(font, letter) for letter in _UNASSIGNED}
    return not any(_shape(font, letter) in missing for letter in letters if not _is_invisible(letter))


@lru_cache(maxsize=64)
def _load(file: str, index: int) -> Any:
    """The font at a size at which shapes differ; None where it cannot be read."""
    if not file:
        return ImageFont.load_default(24)
    try:
        return ImageFont.truetype(file, 24, index)
    except (OSError, ValueError):
        return None


def _shape(font: Any, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _is_invisible(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) in ("Cf", "Mn", "Zs")


def _needs_shaping(letters: str) -> bool:
    """Arabic, Hebrew and the scripts of India and South-East Asia, whose letters join or move."""
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL")
        or 0x0900 <= ord(letter) <= 0x109F
        or 0x1780 <= ord(letter) <= 0x17FF
        for letter in letters
    )

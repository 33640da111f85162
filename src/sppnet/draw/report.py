"""Reports as self-contained HTML files."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image

from sppnet.errors import UserError
from sppnet.files import make_folder, write_text

_MAX_SIDE = 1400  # pixels of the longer side of an embedded image
_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class ReportTable:
    """A table of a report.

    Attributes:
        title: its heading.
        columns: the names of its columns.
        rows: strings, numbers or None, one per column.

    Examples:
        >>> len(ReportTable("Classes", ["class", "AP50"], [["cat", 0.9], ["dog", None]]).rows)
        2
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class ReportImage:
    """An image or plot of a report.

    Attributes:
        image: a PIL image, which is embedded as a JPEG of at most 1400 pixels per side, or the bytes of a
            PNG or JPEG file, which are embedded unchanged.
        caption: the text below it.

    Examples:
        >>> ReportImage(Image.new("RGB", (400, 300)), "1.jpg: cat 0.95").caption
        '1.jpg: cat 0.95'
    """

    image: Image.Image | bytes
    caption: str


def write_report(
    path: str | os.PathLike[str],
    title: str,
    facts: Mapping[str, object],
    tables: Sequence[ReportTable] = (),
    images: Sequence[ReportImage] = (),
    plots: Sequence[ReportImage] = (),
) -> None:
    """Write a report as one HTML file with embedded images.

    Text is escaped. The page has a light and a dark theme. The file is written atomically, and missing
    folders are created.

    Args:
        path: the file, such as ``report.html``.
        title: the heading.
        facts: the main values by name, which are shown first.
        tables: tables; floats have four significant digits.
        images: images, in a grid.
        plots: plots, in a grid with wider columns.

    Raises:
        UserError: a row differs in length from the columns, or bytes are not a PNG or JPEG file.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "report.html"
        >>> write_report(path, "Evaluation", {"AP50": 0.871})
        >>> "0.871" in path.read_text()
        True
    """
    for table in tables:
        for number, row in enumerate(table.rows):
            if len(row) != len(table.columns):
                where = f"row {number} of {table.title!r}"
                raise UserError(where, f"{len(table.columns)} cells, one per column", len(row))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = _shown
    environment.tests["a_number"] = _is_number
    source = resources.files("sppnet.draw").joinpath("report.html").read_text(encoding="utf-8")
    html = environment.from_string(source).render(
        title=title,
        facts=facts,
        tables=tables,
        images=[_embedded(image) for image in images],
        plots=[_embedded(plot) for plot in plots],
    )
    target = Path(path)
    make_folder(target.parent)
    write_text(target, html)


@dataclass(frozen=True)
class _Embedded:
    """An image as the template embeds it."""

    address: str
    width: int
    height: int
    caption: str


def _embedded(image: ReportImage) -> _Embedded:
    """Encode an image as a data address."""
    if isinstance(image.image, bytes):
        content = image.image
    else:
        reduced = image.image.convert("RGB")
        reduced.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        reduced.save(buffer, "JPEG", quality=88)
        content = buffer.getvalue()
    kind = next((kind for start, kind in _SIGNATURES.items() if content.startswith(start)), None)
    if kind is None:
        raise UserError(f"image {image.caption!r}", "the bytes of a PNG or JPEG file", repr(content[:8]))
    with Image.open(io.BytesIO(content)) as opened:
        width, height = opened.size
    address = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return _Embedded(address, width, height, image.caption)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Format a value for the page."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return str(value)

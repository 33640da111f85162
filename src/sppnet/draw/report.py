"""One HTML file that tells what came out: it needs no other file and no network."""

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

_MOST_PIXELS = 1400  # the longer side of an embedded image
_STARTS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class ReportTable:
    """A table of a report.

    Attributes:
        title: what stands above it.
        columns: the names of its columns.
        rows: text, numbers or None, as many a row as columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class ReportImage:
    """An image or plot of a report.

    Attributes:
        image: a PIL image, which becomes a JPEG of at most 1400 pixels a side, or the bytes of a PNG or
            JPEG file, which are taken as they are.
        caption: what stands below it.
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
    """Write a report as one HTML file, images embedded; its folder is made where missing.

    Text is escaped, whatever it holds. The page is light or dark as the reader's system is. The file is
    written beside its place and then renamed.

    Args:
        path: the file, ``report.html`` say.
        title: its heading.
        facts: the main figures, shown first and large, in this order.
        tables: tables; numbers stand to the right, floats with four significant digits.
        images: drawn images, in a grid.
        plots: plots, larger.

    Raises:
        UserError: a row that is longer or shorter than its columns, or bytes that are no PNG or JPEG.
    """
    for table in tables:
        for number, row in enumerate(table.rows):
            if len(row) != len(table.columns):
                where = f"row {number} of {table.title!r}"
                raise UserError(where, f"{len(table.columns)} cells, one a column", len(row))
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
    address: str
    width: int
    height: int
    caption: str


def _embedded(image: ReportImage) -> _Embedded:
    if isinstance(image.image, bytes):
        content = image.image
    else:
        shown = image.image.convert("RGB")
        shown.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        shown.save(buffer, "JPEG", quality=88)
        content = buffer.getvalue()
    kind = next((kind for start, kind in _STARTS.items() if content.startswith(start)), None)
    if kind is None:
        raise UserError(f"image {image.caption!r}", "the bytes of a PNG or JPEG file", repr(content[:8]))
    with Image.open(io.BytesIO(content)) as opened:
        width, height = opened.size
    address = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return _Embedded(address, width, height, image.caption)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
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

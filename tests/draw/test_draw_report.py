from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from sppnet.draw import ReportImage, ReportTable, write_report
from sppnet.errors import UserError

NASTY = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Parse a page into text and image sources, and check that its tags are nested correctly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.words.append(data.strip())


def png(size: tuple[int, int] = (30, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_report_is_complete_and_self_contained(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(
        path,
        NASTY,
        {"AP50": 0.85123, "images": 12345, "cut": True, NASTY: NASTY, "none": None, "levels": (1, 2, 3)},
        [ReportTable(f"table {NASTY}", ["class", NASTY], [["cat", 0.5], [NASTY, None], ["big", 123456.7]])],
        [ReportImage(Image.new("RGBA", (3000, 1500), (255, 0, 0, 255)), NASTY)],
        [ReportImage(png(), "a plot")],
    )
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags
    assert page.words.count(NASTY) == 7  # title, heading, fact and its value, column, cell, caption
    for word in ("0.8512", "12,345", "yes", "\u2013", "1, 2, 3", "0.5", "123,457", "a plot"):
        assert word in page.words, word
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not re.search(r"https?:|@import|url\(", html)
    images = [Image.open(io.BytesIO(base64.b64decode(s.split(",")[1]))) for s in page.sources]
    assert {(image.format, image.size) for image in images} == {("PNG", (30, 20)), ("JPEG", (1400, 700))}
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_an_empty_report_has_no_empty_elements(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "nothing", {})
    page = Page((tmp_path / "r.html").read_text())
    assert not {"h2", "dl", "table", "figure"} & set(page.tags)
    assert page.words == ["nothing", "nothing"]
    write_report(tmp_path / "r.html", "empty", {}, [ReportTable("t", ["a"], [])])
    assert "table" in Page((tmp_path / "r.html").read_text()).tags


def test_invalid_arguments_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    with pytest.raises(UserError, match="row 1 of 't': expected 2 cells, one per column, got 1"):
        write_report(path, "", {}, [ReportTable("t", ["a", "b"], [[1, 2], [1]])])
    with pytest.raises(UserError, match="the bytes of a PNG or JPEG file"):
        write_report(path, "", {}, images=[ReportImage(b"GIF89a", "p")])
    assert not list(tmp_path.iterdir())

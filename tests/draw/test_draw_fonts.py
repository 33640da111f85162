from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from sppnet.draw import draw_boxes, fonts, plot_confusion, undrawable_names
from sppnet.errors import UserError
from sppnet.structures import Boxes, Detections, ImageSize

CHINESE, DEVANAGARI, KOREAN = "\u732b", "\u0915\u0941\u0924\u094d\u0924\u093e", "\uace0\uc591\uc774"
CYRILLIC, ARABIC, ACCENTED = "\u043a\u043e\u0442", "\u0642\u0637\u0629", "na\u00efvet\u00e9 \u0159"


def make_font(path: Path, letters: str) -> Path:
    """Write a font with a different triangle for each character."""
    names = {ord(letter): f"g{i}" for i, letter in enumerate(letters)}
    glyphs = {}
    for i, name in enumerate([".notdef", *names.values()]):
        pen = TTGlyphPen(None)
        pen.moveTo((50, 0))
        pen.lineTo((500, 0))
        pen.lineTo((500, 100 + 60 * i))
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (550, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Triangles", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def drawn(names: tuple[str, ...], label: int) -> bytes:
    size = ImageSize(200, 400)
    box = Boxes(torch.tensor([[50.0, 60, 350, 190]]), size)
    found = Detections(box, torch.tensor([0.5]), torch.tensor([label]), names)
    return draw_boxes(np.full((200, 400, 3), 128, np.uint8), found).tobytes()


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch):
    """Make all fonts except that of Pillow unavailable."""
    monkeypatch.setattr(fonts, "_files", lambda letters, chosen: iter(()))
    fonts._font_file.cache_clear()
    yield
    fonts._font_file.cache_clear()


def test_names_of_every_script_differ() -> None:
    """The names of a pair have equal length: glyphs of missing characters would be equal."""
    pairs = [
        ("\u732b\u732b", "\u72ac\u72ac"), ("\u043a\u043e\u0442", "\u043f\u0435\u0441"),
        ("\uace0\uc591", "\uac15\uc544"), ("\u0642\u0637\u0629", "\u0643\u0644\u0628"),
        ("\u306d\u3053", "\u3044\u306c"), ("\u0915\u0916", "\u0917\u0918"), ("\u00e9\u00e8", "\u00f6\u00fc"),
    ]  # fmt: skip
    for pair in pairs:
        texts = [fonts.drawn_name(name, label) for label, name in enumerate(pair)]
        masks = [fonts.font_of(24, text).getmask(text) for text in texts]
        assert bytes(masks[0]) != bytes(masks[1]), pair


def test_without_a_font_names_are_drawn_as_numbers(no_fonts) -> None:
    names = ("cat", CHINESE, KOREAN, ACCENTED)
    assert undrawable_names(names) == {1: CHINESE, 2: KOREAN, 3: ACCENTED}
    assert [fonts.drawn_name(name, label) for label, name in enumerate(names)] == ["cat", "#1", "#2", "#3"]


def test_a_font_with_the_characters_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_font(tmp_path / "t.ttf", CHINESE + KOREAN + " 0.5")
    monkeypatch.setenv("SPPNET_FONT", str(path))
    assert fonts.font_file(CHINESE + " 0.5") == (str(path), 0)
    assert fonts.font_file("cat") == ("", 0)
    assert drawn((CHINESE, CHINESE), 0) == drawn((CHINESE, KOREAN), 0) != drawn((KOREAN, CHINESE), 0)
    monkeypatch.setenv("SPPNET_FONT", str(tmp_path / "missing.ttf"))
    with pytest.raises(UserError, match="SPPNET_FONT"):
        fonts.font_file(CHINESE)


def test_joined_scripts_require_raqm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts.features, "check", lambda feature: False)
    fonts._font_file.cache_clear()
    assert undrawable_names((ARABIC, DEVANAGARI, "cat")) == {0: ARABIC, 1: DEVANAGARI}
    fonts._font_file.cache_clear()


def test_matplotlib_has_a_font_for_cyrillic_and_accents() -> None:
    pytest.importorskip("matplotlib")
    assert undrawable_names((CYRILLIC, ACCENTED)) == {}


def test_control_characters_are_escaped(no_fonts) -> None:
    assert fonts.drawn_name("a\x1b[31m", 0) == "a\\x1b[31m"


@pytest.mark.filterwarnings("error")
def test_plots_of_any_names_give_no_warning() -> None:
    pytest.importorskip("matplotlib")
    names = [CHINESE, CYRILLIC, ARABIC, ACCENTED, "_a$b", "a\x1bb"]
    first = plot_confusion(np.eye(6, dtype=int), names)
    other = plot_confusion(np.eye(6, dtype=int), ["\u72ac", *names[1:]])
    assert first[:4] == b"\x89PNG"
    assert first != other

"""Makers of tiny data sets for the tests of `sppnet.data`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

MakeImage = Callable[..., Path]


@pytest.fixture
def image() -> MakeImage:
    """An image of a size (width, height), as Pillow counts it, with its folders."""

    def make(path: Path, size: tuple[int, int] = (40, 30), orientation: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", size, (90, 120, 40)).save(path, exif=exif.tobytes())
        return path

    return make


@pytest.fixture
def text() -> Callable[[Path, str], Path]:
    """A text file with its folders."""

    def make(path: Path, content: str = "") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return make


@pytest.fixture
def voc(image: MakeImage, text: Callable[[Path, str], Path]) -> Callable[..., Path]:
    """A VOC data set of images 40 x 30 from objects (name, xmin, ymin, xmax, ymax) by key."""

    def make(
        root: Path,
        objects: Mapping[str, Sequence[tuple[str, object, object, object, object]]],
        lists: Mapping[str, str] | None = None,
    ) -> Path:
        (root / "Annotations").mkdir(parents=True, exist_ok=True)
        for key, rows in objects.items():
            image(root / "JPEGImages" / f"{key}.jpg")
            nodes = "".join(
                f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
                f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
                for name, a, b, c, d in rows
            )
            text(root / "Annotations" / f"{key}.xml", f"<annotation>{nodes}</annotation>")
        for name, content in (lists or {}).items():
            text(root / "ImageSets" / "Main" / f"{name}.txt", content)
        return root

    return make

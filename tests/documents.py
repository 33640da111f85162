"""Runnable blocks of the documentation, and the data that they name.

A fence of the language python or sh is run; a fence without a language is not. The blocks of one document
share a folder and, for Python, a namespace. ``<!-- not run: REASON -->`` in the line above leaves one out.
"""

from __future__ import annotations

import glob
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sppnet.data import write_voc
from sppnet.data.video import VideoWriter
from sppnet.detect import Detector, DetectorOptions
from sppnet.structures import Boxes, GroundTruth, ImageSize

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = ("python", "sh")
FENCE = re.compile(r"^(?P<note><!--[^\n]*-->\n)?```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S)
NAMES = ("round", "square")
COLOURS = ((220, 60, 60), (60, 80, 220))


@dataclass(frozen=True)
class Block:
    """One fence of a document.

    Attributes:
        page: the document.
        line: number of the line of the fence.
        language: as written behind the fence.
        text: the lines between the fences.
        left_out: the reason, where the document has one.
    """

    page: Path
    line: int
    language: str
    text: str
    left_out: str = ""

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.left_out


def blocks(page: Path) -> list[Block]:
    """All fences of a document."""
    return blocks_of(page.read_text(encoding="utf-8"), page)


def blocks_of(text: str, page: Path) -> list[Block]:
    found = []
    for match in FENCE.finditer(text):
        note = re.fullmatch(r"<!-- not run: (.+) -->\n", match["note"] or "")
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(page, line, match["language"], match["text"], note[1] if note else ""))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block as words: comments dropped, lines joined, wildcards expanded."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield [name for word in words for name in (sorted(glob.glob(word)) or [word])]


def run_blocks(found: list[Block], main: Callable[[list[str]], int]) -> int:
    """Run the blocks in the current folder and return how many there were.

    Args:
        found: blocks of one document, in order.
        main: runs the words behind ``sppnet`` and returns the exit code.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    count = 0
    for block in found:
        if not block.runs:
            continue
        count += 1
        where = f"{block.page.name}:{block.line}"
        if block.language == "python":
            # Empty lines in front, so that a traceback has the line of the document.
            exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)
            continue
        for words in commands(block.text):
            assert words[0] == "sppnet", f"{where}: only sppnet can be run, got {words[0]}"
            assert main(words[1:]) == 0, f"{where}: {shlex.join(words)}"
    return count


def _scene(seed: int) -> tuple[np.ndarray, GroundTruth]:
    """Noise with a disc and a square."""
    draw = np.random.default_rng(seed)
    height, width = int(draw.integers(100, 120)), int(draw.integers(130, 150))
    pixels = draw.integers(90, 140, (height, width, 3))
    rows, columns = np.mgrid[:height, :width]
    boxes = []
    for label, colour in enumerate(COLOURS):
        side = int(draw.integers(28, 40))
        left = label * (width // 2) + int(draw.integers(0, width // 2 - side))
        top = int(draw.integers(0, height - side))
        inside = (abs(rows - top - side // 2) <= side // 2) & (abs(columns - left - side // 2) <= side // 2)
        if label == 0:
            inside &= (rows - top - side // 2) ** 2 + (columns - left - side // 2) ** 2 <= (side // 2) ** 2
        pixels[inside] = colour
        boxes.append([left, top, left + side, top + side])
    size = ImageSize(height, width)
    truth = GroundTruth.make(
        Boxes(torch.tensor(boxes, dtype=torch.float32), size), torch.tensor([0, 1]), NAMES
    )
    return pixels.astype(np.uint8), truth


def write_data(root: Path) -> None:
    """What documents name: data/cells, data/aerial, data/flowers, photo.jpg, photos/ and others."""
    for split, first, count in (("train", 0, 4), ("val", 100, 2)):
        for name in ("cells", "aerial"):
            scenes = [(f"{split}{i}", *_scene(first + i)) for i in range(count)]
            write_voc(root / "data" / name, scenes, split)
        for name, colour in zip(NAMES, COLOURS, strict=True):
            folder = root / "data" / "flowers" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = np.random.default_rng(i).integers(-40, 35, (60 + 5 * i, 90 - 4 * i, 3))
                Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    (root / "photos").mkdir()
    for i, name in enumerate(("photo.jpg", "slide.png", "a.jpg", "b.png", "photos/1.jpg", "photos/2.png")):
        Image.fromarray(_scene(200 + i)[0]).save(root / name)
    boxes = {name: [[0, 0, 50, 60], [20, 30, 90, 95]] for name in ("1.jpg", "2.png")}
    (root / "boxes.json").write_text(json.dumps(boxes))
    with VideoWriter(root / "tour.mp4", Fraction(10)) as video:
        for i in range(6):
            video.write(np.full((100, 130, 3), 20 * i, np.uint8))


def write_runs(root: Path) -> None:
    """A small run in runs/cells, for documents that begin where the README ends."""
    options = DetectorOptions(short_side=96, levels=(2, 1), windows=200, mining_rounds=1, iou_head=16)
    detector = Detector("builtin", device="cpu", options=options)
    detector.fit(root / "data" / "cells", split="train", quiet=True)
    detector.save(root / "runs" / "cells")

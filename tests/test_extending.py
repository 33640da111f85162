"""Every kind of extension that docs/extending.md lists is one module and one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet import Detector
from sppnet.data import layout_names, read_detection, recognise, splits
from sppnet.data.formats import FORMATS, Format
from sppnet.errors import UserError
from sppnet.export.targets import TARGETS, ExportOptions, find_target
from sppnet.structures import Boxes, DetectionItem, DetectionSet, GroundTruth, ImageSize


def _is_dots(root: Path) -> bool:
    return (root / "dots.txt").is_file()


def _read_dots(root: Path, split: str) -> DetectionSet:
    """``name x0 y0 x1 y1`` per line, one box per image."""
    items: list[DetectionItem] = []
    for line in (root / "dots.txt").read_text().splitlines():
        name, *numbers = line.split()
        size = ImageSize(*Image.open(root / name).size[::-1])
        boxes = Boxes(torch.tensor([[float(number) for number in numbers]]), size)
        truth = GroundTruth.make(boxes, torch.zeros(1, dtype=torch.int64), ("dot",))
        items.append(DetectionItem(root / name, name, truth))
    return DetectionSet(root, "dots", split, ("dot",), (1,), tuple(items))


def test_a_toy_data_format_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "dots.txt").write_text("a.png 1 2 11 12\nb.png 5 5 20 30\n")
    dots = Format("dots", _is_dots, lambda root: (), detection=_read_dots)
    monkeypatch.setattr("sppnet.data.layouts.FORMATS", [dots, *FORMATS])
    assert layout_names()[0] == "dots"
    assert recognise(tmp_path) == "dots"
    assert splits(tmp_path) == ()
    read = read_detection(tmp_path)
    assert [item.truth.boxes.xyxy[0].tolist() for item in read.items] == [[1, 2, 11, 12], [5, 5, 20, 30]]
    assert read_detection(tmp_path, layout="dots").names == ("dot",)


def test_formats_have_different_names() -> None:
    assert len(set(layout_names())) == len(layout_names())
    with pytest.raises(UserError, match="layout: expected one of voc, coco, yolo, folders, got 'dots'"):
        read_detection(".", layout="dots")


def write_params(estimator: Detector, path: Path, options: ExportOptions) -> Path:
    path.write_text(f"{estimator.seed} {options.part}")
    return path


def test_a_toy_export_target_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "toy", f"{__name__}:write_params")
    path = find_target("toy")(Detector(seed=3), tmp_path / "toy.txt", ExportOptions(part="features"))
    assert path.read_text() == "3 features"


def test_every_target_can_be_imported() -> None:
    assert all(callable(find_target(name)) for name in TARGETS)

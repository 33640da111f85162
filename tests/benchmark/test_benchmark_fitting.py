from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet.benchmark import fitting
from sppnet.benchmark.classifying import views_and_pyramids
from sppnet.benchmark.windows import recall_of_windows
from sppnet.data import write_voc
from sppnet.errors import UserError
from sppnet.structures import Boxes, GroundTruth, ImageSize

SIZE = ImageSize(120, 160)


def _image(seed: int) -> tuple[np.ndarray, GroundTruth]:
    """Create images of two bright squares, one of them red, on noise."""
    draw = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(SIZE.height, SIZE.width, 3, generator=draw) * 80).to(torch.uint8)
    boxes = []
    for x0, colour in ((8, (255, 40, 40)), (88, (220, 255, 220))):
        x, y = x0 + int(torch.randint(0, 20, (1,), generator=draw)), 20 + 3 * (seed % 10)
        pixels[y : y + 44, x : x + 44] = torch.tensor(colour, dtype=torch.uint8)
        boxes.append([x, y, x + 44, y + 44])
    place = Boxes(torch.tensor(boxes, dtype=torch.float32), SIZE)
    truth = GroundTruth.make(place, torch.tensor([0, 1]), ("pale", "red"))
    return pixels.numpy(), truth


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("squares")
    write_voc(root, [(f"a{i}", *_image(i)) for i in range(6)], "train")
    write_voc(root, [(f"b{i}", *_image(50 + i)) for i in range(2)], "val")
    return root


def test_every_part_on_a_few_images(squares: Path, tmp_path: Path) -> None:
    parts = ("prediction", "svm", "rcnn", "curve", "growth", "faster_rcnn")
    request = fitting.FittingRequest(
        squares, None, (), "random:builtin", None, parts, tmp_path, quick=True, quiet=True
    )
    found = fitting.run(request)
    json.dumps(found)
    ours = found["detector"]
    assert ours["images"] == 6
    assert ours["fit_s"] >= ours["seconds"]["total"] * 0.9
    for row in found["rows"]:
        assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
    svm = found["rows"][0]
    assert svm["objective"] == pytest.approx(svm["peer_objective"], rel=1e-3)
    peer = found["rows"][-1]
    assert peer["peer_s"] >= ours["fit_s"]
    assert peer["peer_steps"] >= 1
    assert found["prediction_ms"]["all of predict"] > found["prediction_ms"]["network"]
    assert [row["images"] for row in found["growth"]] == [6, 12]
    assert [row["images"] for row in found["curve"]] == [5, 6]
    assert {path.name for path in tmp_path.iterdir()} == {"run", "curve.png", "seconds.png"}


def test_recall_of_windows(squares: Path) -> None:
    pytest.importorskip("cv2")
    rows = recall_of_windows(squares, 1)
    assert len(rows) == 6
    for row in rows:
        assert row["objects"] == 2
        assert 0 <= row["recall_70"] <= row["recall_50"] <= 1
    # Windows of the objects' own shape at a fifth of their sides miss none by half.
    assert rows[4]["recall_50"] == 1
    # Selective search finds plain squares on noise.
    assert rows[5]["recall_70"] == 1


def test_views_and_pyramids(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
            for i in range(count):
                path = tmp_path / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40 + 9 * i, 60), colour).save(path)
    rows = views_and_pyramids(tmp_path, "random:builtin", None, quiet=True)
    assert [row["setting"] for row in rows[2:]] == [
        f"{view}, {levels}" for view in ("crop", "warp", "full") for levels in ("6x6", "6,3,2,1")
    ]
    assert all(row["accuracy"] == 1 for row in rows)


def test_an_unknown_part_raises_a_user_error(squares: Path, tmp_path: Path) -> None:
    request = fitting.FittingRequest(squares, None, (), "random:builtin", None, ("speed",), tmp_path)
    with pytest.raises(UserError, match="speed"):
        fitting.run(request)

"""`sppnet reproduce table9` to `table12` with `--quick`, from the shell: the document, the paper beside."""

from __future__ import annotations

import functools
import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet.backbones import load_backbone, prepare
from sppnet.data import write_voc
from sppnet.detect import detector as detector_module
from sppnet.paper import detection
from sppnet.paper.detection import TABLES
from sppnet.paper.tables import DetectionSize, Request
from sppnet.structures import Boxes, GroundTruth, ImageSize

NETWORK = "random:torchvision:squeezenet1_0"
SIZE = ImageSize(60, 80)
NAMES = ("dog", "cell")  # one of VOC's, and one that is not


def image(seed: int) -> tuple[np.ndarray, GroundTruth]:
    """A red square and a blue one on noise."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(80, 120, (SIZE.height, SIZE.width, 3))
    boxes: list[list[int]] = []
    for left, colour in ((3, (240, 40, 40)), (43, (40, 40, 240))):
        x, y = left + int(draw.integers(0, 8)), int(draw.integers(2, 30))
        pixels[y : y + 26, x : x + 26] = colour
        boxes.append([x, y, x + 26, y + 26])
    place = Boxes(torch.tensor(boxes, dtype=torch.float32), SIZE)
    return pixels.astype(np.uint8), GroundTruth.make(place, torch.tensor([0, 1]), NAMES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voc")
    write_voc(root, [(f"a{i}", *image(i)) for i in range(2)], "train")
    write_voc(root, [("b0", *image(90))], "val")
    return root


@functools.cache
def load_once(name: str, weights: Path | None, layers: tuple[str, ...] | None, seed: int = 0):
    return load_backbone(name, weights, layers or ("stride4",), seed=seed)


prepare_once = functools.cache(prepare)


@pytest.fixture(autouse=True)
def _one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring and preparing a network takes longer than everything else here."""
    monkeypatch.setattr(detector_module, "load_backbone", load_once)
    monkeypatch.setattr(detector_module, "prepare", prepare_once)


PAPER = {
    "table9": {
        "pool5, 1 scale": 43.0,
        "ftfc7 bb, 5 scales": 59.2,
        "pool5, R-CNN": 44.2,
        "fc, R-CNN": 0.07,
        "speed-up over R-CNN, 1 scale": 64.0,
    },
    "table10": {
        "ftfc7, 1 scale": 54.5,
        "ftfc7 bb, R-CNN": 59.2,
        "conv, R-CNN": 14.37,
        "total, 5 scales": 0.382,
    },
    "table11": {"SPP ftfc7, dog": 58.2, "SPP ftfc7 bb, cell": None, "SPP ftfc7 bb, mean": 59.2},
    "table12": {"combination, mean": 60.9, "SPP-net (2), dog": 64.8},
}


@pytest.mark.parametrize("table", sorted(PAPER))
def test_quick_from_end_to_end(shell, data: Path, tmp_path: Path, table: str) -> None:
    words = ("--data", data, "--out", tmp_path, "--backbone", NETWORK, "--device", "cpu", "--quick", "--json")
    said = shell("reproduce", table, *words)
    assert said.code == 0, said.err
    document = said.document
    assert document == json.loads((tmp_path / f"{table}.json").read_text())
    assert document["table"] == table
    assert document["unit"].endswith("%")
    rows = {row["setting"]: row for row in document["rows"]}
    assert len(rows) == {"table9": 15 + 9 + 2, "table10": 6 + 9 + 2, "table11": 6, "table12": 9}[table]
    assert {name: rows[name]["paper"] for name in PAPER[table]} == PAPER[table]
    assert all(row["ours"] >= 0 for row in rows.values())
    assert all(row["ours"] <= 100 for row in rows.values() if row["unit"].endswith("%"))
    # A figure of the paper never stands beside that of another network and data set unsaid.
    noted = [
        f"ours {NETWORK} on {data.name}" in row["note"] for row in rows.values() if row["paper"] is not None
    ]
    assert noted
    assert all(noted)
    assert any("quick" in line for line in document["differs"])


def test_a_table_says_how_large_it_was_made(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    seen: list[detector_module.Detector] = []

    def fit(self, *_: object, **__: object):
        seen.append(self)
        return self

    monkeypatch.setattr(detector_module.Detector, "fit", fit)
    monkeypatch.setattr(detector_module.Detector, "evaluate", lambda *_, **__: {"VOC07_AP50": 0.5})
    monkeypatch.setattr(detection, "feature_times", lambda *_: detection.FeatureTimes(1.0, 2.0))
    monkeypatch.setattr(detector_module.Detector, "proposals", lambda *_: None)
    monkeypatch.setattr(detector_module.Detector, "names_", NAMES, raising=False)
    device = types.SimpleNamespace(device=torch.device("cpu"))
    monkeypatch.setattr(detector_module.Detector, "network_", device, raising=False)
    size = DetectionSize(windows=321, width=48, batches=50, rate=2e-3)
    table = TABLES["table9"](Request(data, tmp_path, NETWORK, quiet=True, detection=size))
    told = " ".join(table.differs)
    for word in ("321 proposals", "48 wide", "50 batches", "0.002", "none of the images flipped"):
        assert word in told
    options = [detector.options for detector in seen]
    assert {o.window.windows for o in options} == {321}
    assert {o.finetune.lengths for o in options} == {(40, 10)}
    assert {o.finetune.rates for o in options} == {(2e-3, 2e-4)}
    assert {o.finetune.flipped for o in options} == {False}
    spp, rcnn = options[:10], options[10:]
    assert [o.map.scales for o in spp] == 5 * [(688,)] + 5 * [(480, 576, 688, 864, 1200)]
    assert {(o.pool.pipeline, o.box.above_iou, o.box.ridge) for o in rcnn} == {("rcnn", 0.6, 1000.0)}
    assert {o.finetune.background_iou for o in rcnn} == {(0.0, 0.5)}
    ratios = [row.ours for row in table.rows if row.setting.startswith("speed-up")]
    assert ratios == [1.0, 1.0]


@pytest.mark.parametrize(("name", "mean"), [("zf5", 128.0), ("overfeat7/4", 128.0), (NETWORK, None)])
def test_the_papers_networks_take_images_less_128(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, name: str, mean: float | None
) -> None:
    seen: list[detector_module.Detector] = []

    def fit(self, *_: object, **__: object):
        seen.append(self)
        return self

    found = {"VOC07_AP50": 0.5, "per_class": {"dog": {"VOC07_AP50": 0.5}}}
    monkeypatch.setattr(detector_module.Detector, "fit", fit)
    monkeypatch.setattr(detector_module.Detector, "evaluate", lambda *_, **__: found)
    monkeypatch.setattr(detector_module.Detector, "names_", NAMES, raising=False)
    table = TABLES["table11"](Request(data, tmp_path, name, quiet=True))
    assert {detector.options.map.mean_pixel for detector in seen} == {mean}
    assert any("less 128" in line for line in table.differs) == (mean is not None)

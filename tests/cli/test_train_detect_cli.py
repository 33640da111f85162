"""`sppnet train detect` from the shell: a run, one that is gone on with, both pipelines, mistakes."""

from __future__ import annotations

import functools
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sppnet.backbones import load_backbone, prepare
from sppnet.data import write_voc
from sppnet.detect import detector as detector_module
from sppnet.detect import fitting
from sppnet.structures import Boxes, GroundTruth, ImageSize

WORDS = (
    "--backbone=random:torchvision:squeezenet1_0",
    "--layers=stride8",
    "--levels=2",
    "--device=cpu",
    "--source=dense",
    "--windows=60",
    "--width=8",
    "--finetune.rates=1e-3",
    "--finetune.lengths=3",
    "--finetune.images=2",
    "--crop-side=48",
    "--crop-padding=4",
)
SPP = (*WORDS, "--scales=64", "--features=fc6")
SIZE = ImageSize(80, 100)


def image(seed: int) -> tuple[np.ndarray, GroundTruth]:
    """A bright square on the left or the right half of noise."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(80, 120, (SIZE.height, SIZE.width, 3))
    x, y = 5 + 50 * (seed % 2), int(draw.integers(5, 35))
    pixels[y : y + 40, x : x + 40] = (240, 60, 30)
    box = Boxes(torch.tensor([[x, y, x + 40, y + 40]], dtype=torch.float32), SIZE)
    return pixels.astype(np.uint8), GroundTruth.make(box, torch.tensor([0]), ("square",))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("train")
    write_voc(root, [(f"a{i}", *image(i)) for i in range(4)], "train")
    write_voc(root, [(f"b{i}", *image(90 + i)) for i in range(2)], "val")
    return root


@functools.cache
def load_once(name: str, weights: Path | None, layers: tuple[str, ...] | None, seed: int = 0):
    return load_backbone(name, weights, layers, seed=seed)


prepare_once = functools.cache(prepare)


@pytest.fixture(autouse=True)
def _one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring and preparing a network takes longer than everything else here."""
    monkeypatch.setattr(detector_module, "load_backbone", load_once)
    monkeypatch.setattr(detector_module, "prepare", prepare_once)


def kept(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("stage", ["finetune", "fit_pooled"])
def test_an_interrupted_command_goes_on(
    shell, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out, stages = tmp_path / "run", tmp_path / "run.stages"
    with monkeypatch.context() as patch:
        patch.setattr(fitting, stage, interrupt)
        assert shell("train", "detect", data, "--out", out, *SPP).code == 130
    assert not out.exists()
    before = kept(stages)
    assert {path.parent.name for path in before} >= {"maps"}
    said = shell("train", "detect", data, "--out", out, *SPP, "--json")
    assert said.code == 0
    after = kept(stages)
    assert all(after[path] == time for path, time in before.items())
    assert said.document["stages_made"] == len(after) - len(before)
    fresh = tmp_path / "fresh"
    assert shell("train", "detect", data, "--out", fresh, *SPP).code == 0
    ours, theirs = load_file(out / "model.safetensors"), load_file(fresh / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_is_evaluated_and_predicts(shell, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = shell("train", "detect", data, "--out", out, *WORDS, "--scales=64", "--features=pool")
    assert said.code == 0
    assert "Next: sppnet evaluate" in said.out
    assert json.loads((out / "model.json").read_text())["names"] == ["square"]
    assert tomllib.loads((out / "config.toml").read_text())["options"]["map"]["scales"] == [64]
    found = shell("evaluate", out, data, "--split=val", "--json").document
    assert found["images"] == 2
    assert 0 <= found["VOC07_AP50"] <= 1
    photo = next((data / "JPEGImages").glob("b0.*"))
    told = shell("predict", out, photo, "--out", out.parent / "predictions", "--json")
    assert told.code == 0


def test_both_pipelines_share_a_folder_of_stages(shell, data: Path, tmp_path: Path) -> None:
    stages = tmp_path / "stages"
    words = (*WORDS, "--scales=64", "--features=pool", "--cache", stages)
    spp = shell("train", "detect", data, "--out", tmp_path / "spp", *words, "--json").document
    rcnn = shell(
        "train", "detect", data, "--out", tmp_path / "rcnn", *words, "--pipeline=rcnn", "--json"
    ).document
    assert (spp["pipeline"], rcnn["pipeline"]) == ("spp", "rcnn")
    assert spp["windows"] == rcnn["windows"]
    assert spp["row_bytes_a_window"] == rcnn["row_bytes_a_window"]
    assert len(list((stages / "crops").iterdir())) == 4
    assert not (tmp_path / "rcnn.stages").exists()


def test_a_image_too_large_is_refused(shell, data: Path, tmp_path: Path) -> None:
    said = shell("train", "detect", data, "--out", tmp_path / "run", *SPP, "--largest=500")
    assert said.code == 2
    assert "options.largest" in said.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_mistakes(refused, data: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    for words, told in (
        (("--scales=8",), "scales"),
        (("--finetune.rates", "1e-3", "1e-4"), "finetune.lengths"),
        (("--source=edge-boxes",), "edge_model"),
        (("--crop-padding=40",), "options.crop_padding"),
        (("--fc-weights", tmp_path / "none.safetensors"), "none.safetensors"),
        (("--proposals", tmp_path / "none.json", "--source=selective-search"), "none.json"),
        (("--pipeline=other",), "pipeline"),
    ):
        assert told in refused("train", "detect", data, *out, *SPP, *words)
    assert "absent" in refused("train", "detect", tmp_path / "absent", *out, *SPP)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("mine")
    assert str(tmp_path / "run") in refused("train", "detect", data, *out, *SPP)
    assert (tmp_path / "run" / "note.txt").read_text() == "mine"

"""Detection with networks of `sppnet train classify`: convolutions, mean, fc6 and fc7."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sppnet.backbones import load_backbone
from sppnet.backbones.weights import read_fc_weights, run_backbone
from sppnet.cli import main
from sppnet.data import write_voc
from sppnet.detect import Detector, DetectorOptions, FinetuneOptions
from sppnet.errors import UserError
from sppnet.structures import Boxes, GroundTruth, ImageSize

BACKBONE = "zf5-small/32"
FIT = (
    "--scales=64",
    "--levels", "2", "1",
    "--device=cpu",
    "--source=dense",
    "--windows=40",
    "--no-finetuned",
    "--features=fc7",
)  # fmt: skip


@pytest.fixture(scope="module")
def network_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pretraining")
    draw = np.random.default_rng(0)
    for label in range(2):
        folder = root / "data" / "train" / f"class{label}"
        folder.mkdir(parents=True)
        for i in range(2):
            pixels = draw.integers(0, 60, (40, 44, 3), dtype=np.uint8)
            pixels[..., label] += 160
            Image.fromarray(pixels).save(folder / f"{i}.png")
    words = ["train", "classify", str(root / "data"), "--out", str(root / "run"), "--device", "cpu"]
    words += ["--backbone", BACKBONE, "--short-side", "40", "--crop", "36", "--epochs", "1", "--batch", "4"]
    words += ["--pyramid", "2", "1", "--hidden", "7", "5", "--start", "he"]
    assert main(words) == 0
    return root / "run"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, size = tmp_path_factory.mktemp("voc"), ImageSize(64, 80)
    draw = np.random.default_rng(1)
    for split, count in (("train", 3), ("val", 1)):
        items = []
        for i in range(count):
            pixels = draw.integers(80, 120, (64, 80, 3)).astype(np.uint8)
            x = 4 + 36 * (i % 2)
            pixels[12:48, x : x + 36] = (240, 60, 30)
            box = Boxes(torch.tensor([[x, 12, x + 36, 48]], dtype=torch.float32), size)
            items.append((f"{split}{i}", pixels, GroundTruth.make(box, torch.tensor([0]), ("square",))))
        write_voc(root, items, split)
    return root


def assert_starts_from(run: Path, detector: Path) -> None:
    """Compare a detector that was not fine-tuned with the network that it started from."""
    theirs, ours = load_file(run / "model.safetensors"), load_file(detector / "model.safetensors")
    for layer in ("fc6", "fc7"):
        for kind in ("weight", "bias"):
            assert torch.equal(ours[f"fc.{layer}.{kind}"], theirs[f"head.{layer}.{kind}"])
    convolutions = [name for name in theirs if name.startswith("backbone.trunk.")]
    assert convolutions
    assert all(torch.equal(ours[name], theirs[name]) for name in convolutions)
    spec = json.loads((run / "model.json").read_text())["network"]["backbone"]
    found = json.loads((detector / "model.json").read_text())["backbone"]
    assert (found["name"], found["mean"], found["std"]) == (spec["name"], spec["mean"], spec["std"])
    assert float(ours["fc.scale"]) == 1.0


@pytest.mark.parametrize("start", ["weights", "from-run", "folder"])
def test_train_detect_starts_from_a_classification_run(
    network_run: Path, data: Path, tmp_path: Path, start: str
) -> None:
    given = {
        "weights": ["--weights", str(network_run / "model.safetensors")],
        "folder": ["--weights", str(network_run), "--backbone", BACKBONE],
        "from-run": ["--from-run", str(network_run)],
    }[start]
    out = tmp_path / "detector"
    assert main(["train", "detect", str(data), "--out", str(out), *given, *FIT]) == 0
    assert_starts_from(network_run, out)
    loaded = Detector.load(out, "cpu")
    assert loaded.summary_["pretrained_fc"] is True
    assert loaded.predict(next((data / "JPEGImages").glob("val0.*"))) is not None


def test_finetuning_continues_from_the_given_layers(network_run: Path, data: Path) -> None:
    """With a tiny learning rate, fc6 equals that of the classification run."""
    tune = FinetuneOptions(rates=(1e-12,), lengths=(2,), images=2)
    options = DetectorOptions.paper(scales=(64,), levels=(2, 1), source="dense", windows=40, finetune=tune)
    detector = Detector(BACKBONE, network_run, "cpu", options=options).fit(data, quiet=True)
    expected = load_file(network_run / "model.safetensors")["head.fc6.weight"]
    assert detector.heads_.fc is not None
    torch.testing.assert_close(detector.heads_.fc.fc6.weight, expected)


def test_weights_of_a_run_are_used_with_its_mean(network_run: Path) -> None:
    backbone = load_backbone(BACKBONE, network_run / "model.safetensors")
    described = run_backbone(network_run)
    assert described is not None
    assert described.std == pytest.approx((0.229, 0.224, 0.225))  # of --start he, not of zf5-small
    assert backbone.std.flatten().tolist() == pytest.approx(described.std)


def test_the_levels_of_the_run_are_required(network_run: Path, data: Path, capsys, tmp_path: Path) -> None:
    words = ["train", "detect", str(data), "--out", str(tmp_path / "o"), "--from-run", str(network_run)]
    words += ["--scales=64", "--device=cpu", "--source=dense"]
    assert main([*words, "--levels", "1", "2"]) == 2
    assert "the levels (2, 1) that fc6" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_random_start_takes_the_convolutions_alone(network_run: Path, data: Path) -> None:
    options = DetectorOptions.paper(
        scales=(64,), levels=(1,), finetuned=False, source="dense", windows=40, width=3, random_start=True
    )
    detector = Detector(BACKBONE, network_run, "cpu", options=options).fit(data, quiet=True)
    assert detector.heads_.fc is not None
    assert detector.heads_.fc.fc7.weight.shape == (3, 3)


@pytest.mark.parametrize("table", ["table9", "table11"])
def test_reproduce_starts_from_a_run(
    network_run: Path, data: Path, tmp_path: Path, table: str, capsys
) -> None:
    words = ["reproduce", table, "--data", str(data), "--out", str(tmp_path), "--from-run", str(network_run)]
    assert main([*words, "--device", "cpu", "--quick", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    told = " ".join(document["differs"])
    assert "fc6 and fc7 of" in told
    assert "start at random" not in told


def test_files_without_two_layers_before_the_classifier(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_file({"head.fc6.weight": torch.zeros(3, 4), "head.fc6.bias": torch.zeros(3)}, path)
    assert read_fc_weights(path, required=False) is None
    with pytest.raises(UserError, match="fc6 and fc7 of a network with two"):
        read_fc_weights(path)
    save_file(
        {
            "fc6.weight": torch.zeros(3, 4),
            "fc6.bias": torch.zeros(3),
            "fc7.weight": torch.zeros(2, 9),
            "fc7.bias": torch.zeros(2),
        },
        path,
    )
    with pytest.raises(UserError, match="with matching shapes"):
        read_fc_weights(path)

from __future__ import annotations

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import sppnet.cli.report  # before names are patched that it imports
import sppnet.detect
import sppnet.recipes.demo_data
from sppnet.detect import DetectorOptions
from sppnet.locks import locked
from sppnet.recipes.demo_data import DemoSize


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same path over few images."""
    size = DemoSize(train=5, test=2, class_train=2, class_test=1, new=1, class_new=2)
    write = functools.partial(sppnet.recipes.demo_data.write_demo_data, size=size)
    monkeypatch.setattr(sppnet.recipes.demo_data, "write_demo_data", write)
    options = DetectorOptions(short_side=160, windows=400, mining_rounds=1, rows=2000, iou_head=16)
    detector = functools.partial(sppnet.detect.Detector, options=options)
    monkeypatch.setattr(sppnet.detect, "Detector", detector)


@pytest.mark.usefixtures("small")
def test_demo_leaves_a_folder_to_look_at(shell, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    said = shell("demo", "--out", out, "--json")
    assert said.code == 0, said.err
    found = said.document
    assert {"AP50", "mean_class_accuracy", "seconds"} <= set(found)
    assert found["seconds"] >= sum(found["stages"].values()) - 0.01
    assert {p.name for p in (out / "images").iterdir()} == {"new-0.jpg", "digit-0.jpg", "digit-1.jpg"}
    assert (out / "report.html").read_text().count("data:image/jpeg") == 3
    for run in ("detector", "classifier"):
        assert {p.name for p in (out / run).iterdir()} >= {"model.safetensors", "metrics.json", "report.html"}
    assert json.loads((out / "detector" / "metrics.json").read_text())["AP50"] == found["AP50"]

    (out / "notes.txt").write_text("mine")
    (out / "images" / "old.jpg").touch()
    again = shell("demo", "--out", out, "--json")
    assert again.document["AP50"] == found["AP50"]
    assert again.document["mean_class_accuracy"] == found["mean_class_accuracy"]
    assert not (out / "images" / "old.jpg").exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_demo_leaves_other_folders_alone(refused, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.jpg").touch()
    assert "other files" in refused("demo", "--out", tmp_path)
    (tmp_path / "demo.json").write_text('{"mine": 1}')  # a file of that name makes it no earlier demo
    assert "other files" in refused("demo", "--out", tmp_path)
    assert (tmp_path / "data" / "precious.jpg").exists()
    assert "other files" in refused("demo", "--out", tmp_path / "data" / "precious.jpg")


def test_two_demos_never_write_to_one_folder(refused, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with locked(out, create=True, name=".sppnet-demo.lock"), ThreadPoolExecutor(1) as other:
        assert "in use by" in other.submit(refused, "demo", "--out", out).result()
    assert not out.exists()


def test_what_a_killed_demo_left_does_not_block_the_next(
    shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(folder: Path, seed: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sppnet.recipes.demo_data, "write_demo_data", stop)
    out = tmp_path / "demo"
    out.mkdir()
    (out / ".sppnet-demo.lock").write_text("process 1 on elsewhere")
    (out / ".sppnet-0123456789abcdef.part").write_text("{")
    for _ in range(2):
        assert shell("demo", "--out", out).code == 130
        assert [path.name for path in out.iterdir()] == ["demo.json"]


def test_a_seed_that_is_none_is_refused(refused, tmp_path: Path) -> None:
    assert "--seed: expected a whole number" in refused("demo", "--out", tmp_path / "demo", "--seed", -1)
    assert not (tmp_path / "demo").exists()

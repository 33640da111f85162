from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sppnet.recipes.demo_data import DemoSets


def test_evaluate_a_detector(shell, sets: DemoSets, detector_run: Path) -> None:
    said = shell("evaluate", detector_run, sets.detection, "--json")
    assert said.code == 0
    assert {"AP50", "AP75", "AP", "per_class"} <= set(said.document)
    written = json.loads((detector_run / "metrics.json").read_text())
    assert written == {**said.document, "data": str(sets.detection), "split": None}
    report = (detector_run / "report.html").read_text()
    assert report.count("data:image/jpeg") == 3
    assert "test-0001.jpg" in report
    assert json.loads((detector_run / "log.jsonl").read_text().splitlines()[-1])["verb"] == "evaluate"


def test_evaluate_a_classifier(shell, sets: DemoSets, classifier_run: Path) -> None:
    said = shell("evaluate", classifier_run, sets.classification, "--split", "train", "--device", "cpu")
    assert said.code == 0
    for word in ("mean_class_accuracy", "top5", "class", "accuracy"):
        assert word in said.out
    written = json.loads((classifier_run / "metrics.json").read_text())
    assert written["split"] == "train"
    assert written["mean_class_accuracy"] > 0.5
    assert "Fitting" in (classifier_run / "report.html").read_text()


@pytest.fixture
def copied(classifier_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(classifier_run, tmp_path / "copied"))


def test_mistakes_in_evaluating(refused, sets: DemoSets, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no such folder" in refused("evaluate", tmp_path / "none", sets.classification)
    assert "without model.json" in refused("evaluate", tmp_path / "empty", sets.classification)
    assert "an empty folder" in refused("evaluate", copied, tmp_path / "empty")
    assert str(sets.detection) in refused("evaluate", copied, sets.detection)
    strange = tmp_path / "strange"
    shutil.copytree(sets.classification, strange)
    shutil.copytree(strange / "test" / "3", strange / "test" / "giraffe")
    shutil.copytree(strange / "train" / "3", strange / "train" / "giraffe")
    assert "giraffe" in refused("evaluate", copied, strange)


def test_a_run_of_another_version(refused, sets: DemoSets, copied: Path) -> None:
    model = json.loads((copied / "model.json").read_text())
    (copied / "model.json").write_text(json.dumps(model | {"format": 99, "package": "7.0"}))
    for words in (("evaluate", copied, sets.classification), ("predict", copied, sets.class_new)):
        assert "format 99, written by sppnet 7.0" in refused(*words)


@pytest.mark.parametrize("name", ["model.safetensors", "config.toml"])
def test_a_damaged_run(refused, sets: DemoSets, copied: Path, name: str) -> None:
    (copied / name).write_bytes(b"\x00")
    assert str(copied / name) in refused("evaluate", copied, sets.classification)
    (copied / name).unlink()
    assert str(copied / name) in refused("evaluate", copied, sets.classification)

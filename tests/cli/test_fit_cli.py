from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from sppnet.recipes.demo_data import DemoSets

FAST = ("--levels", 1, "--backbone", "builtin")


def test_fit_detect_writes_a_run(detector_run: Path) -> None:
    assert {p.name for p in detector_run.iterdir()} >= {
        "config.toml",
        "model.json",
        "model.safetensors",
        "log.jsonl",
    }
    config = tomllib.loads((detector_run / "config.toml").read_text())
    assert config["backbone"] == "builtin"
    assert config["options"]["map"]["short_side"] == 160
    record = json.loads((detector_run / "log.jsonl").read_text().splitlines()[0])
    assert record["verb"] == "fit"
    assert record["images"] == 6


def test_fit_tells_what_it_took(shell, sets: DemoSets, classifier_run: Path, tmp_path: Path) -> None:
    said = shell("fit", "classify", sets.classification, "--out", tmp_path / "run", *FAST, "--json")
    assert said.code == 0
    found = said.document
    assert {"features", "svm", "total"} <= set(found["seconds"])
    assert found["images"] == 30
    assert found["peak_memory_mb"] > 0
    assert found["classes"] == list("0123456789")
    table = shell("fit", "classify", sets.classification, "--out", tmp_path / "again", *FAST)
    assert "seconds.features" in table.out
    assert "Next: sppnet evaluate" in table.out


def test_a_run_can_be_fitted_again_from_its_config(
    shell, sets: DemoSets, classifier_run: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    config = classifier_run / "config.toml"
    assert shell("fit", "classify", sets.classification, "--out", again, "--config", config).code == 0
    assert (again / "config.toml").read_text() == config.read_text()
    assert (again / "model.safetensors").read_bytes() == (classifier_run / "model.safetensors").read_bytes()
    words = ("--config", config, "--C", 0.5, "--overwrite")
    assert shell("fit", "classify", sets.classification, "--out", again, *words).code == 0
    found = tomllib.loads((again / "config.toml").read_text())
    assert found["options"]["C"] == 0.5
    assert found["options"]["levels"] == [2, 1]


def test_a_run_is_not_replaced_by_chance(refused, sets: DemoSets, classifier_run: Path) -> None:
    before = (classifier_run / "model.json").read_bytes()
    said = refused("fit", "classify", sets.classification, "--out", classifier_run)
    assert "--overwrite" in said
    assert (classifier_run / "model.json").read_bytes() == before


@pytest.mark.parametrize("job", ["detect", "classify"])
def test_mistakes_in_fitting(refused, sets: DemoSets, tmp_path: Path, job: str) -> None:
    out = tmp_path / "run"
    data = sets.detection if job == "detect" else sets.classification
    other = sets.classification if job == "detect" else sets.detection
    (tmp_path / "empty").mkdir()
    (tmp_path / "config.toml").write_text("levels = [1]\n")
    (tmp_path / "weights.safetensors").write_bytes(b"none")

    def said(*words: object) -> str:
        return refused("fit", job, *words, "--out", out)

    assert "nowhere" in said("nowhere")
    assert "an empty folder" in said(tmp_path / "empty")
    assert str(other) in said(other)
    assert "'noon'" in said(data, "--split", "noon")
    assert "voc, coco, yolo, folders" in said(data, "--format", "tfrecord")
    missing = tmp_path / "none.safetensors"
    assert f"{missing}: " in said(data, "--backbone", "torchvision:squeezenet1_0", "--weights", missing)
    broken = tmp_path / "weights.safetensors"
    assert f"{broken}" in said(data, "--backbone", "torchvision:squeezenet1_0", "--weights", broken)
    assert "resnet999" in said(data, "--backbone", "torchvision:resnet999")
    assert "levels" in said(data, "--levels", 0)
    assert "got 'levels'" in said(data, "--config", tmp_path / "config.toml")
    assert not out.exists()


def test_out_that_may_not_be_written(refused, sets: DemoSets, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    for out in (tmp_path, tmp_path / "thesis.tex"):
        assert f"{out}: expected" in refused("fit", "detect", sets.detection, "--out", out, "--overwrite")
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_an_undivided_folder_is_divided_and_the_held_out_part_measured(
    shell, sets: DemoSets, tmp_path: Path
) -> None:
    data, run = sets.classification / "train", tmp_path / "run"
    words = ("fit", "classify", data, "--out", run, *FAST, "--json")
    said = shell(*words, "--val-share", 0.34)
    assert (said.document["images"], said.document["held_out_images"]) == (20, 10)
    assert "10 of 30 images held out" in said.err
    said = shell("evaluate", run, data, "--json")
    assert (said.document["images"], said.document["held_out"], said.document["trained_on"]) == (10, True, 0)
    assert "measured on 10 held-out images" in said.err
    assert (run / "report.html").read_text().count("data:image/jpeg") == 8
    assert shell(*words, "--val-share", 0, "--overwrite").document["images"] == 30
    said = shell("evaluate", run, data, "--json")
    assert (said.document["held_out"], said.document["trained_on"]) == (False, 30)
    assert "30 of 30 measured images were fitted on" in said.err


def test_damaged_images_are_listed_at_once_or_left_out(
    shell, refused, sets: DemoSets, tmp_path: Path
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(sets.classification, data)
    damaged = [sorted((data / split / "3").iterdir())[0] for split in ("train", "train", "test")]
    damaged[1] = sorted((data / "train" / "7").iterdir())[1]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-40])
    words = ("fit", "classify", data, "--out", run, *FAST)
    said = refused(*words)
    assert all(str(path) in said for path in damaged[:2])
    assert "--skip-bad" in said
    assert not run.exists()
    assert "2 of 30 images left out" in shell(*words, "--skip-bad").out
    assert str(damaged[2]) in refused("evaluate", run, data)
    assert "1 of 20 images left out" in shell("evaluate", run, data, "--skip-bad").out


def test_an_out_without_room_is_found_before_the_data_is_read(refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "data").mkdir()  # reading it would fail: it is empty
    words = ("fit", "classify", tmp_path / "data", "--out", tmp_path / "file" / "run")
    assert "a folder that can be written" in refused(*words)

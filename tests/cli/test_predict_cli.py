from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

from PIL import Image

from sppnet.cli.outputs import free_names
from sppnet.recipes.demo_data import DemoSets


def test_predict_with_a_detector(shell, sets: DemoSets, detector_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--out", out, "--threshold", 0.0, "--formats", "coco", "csv", "--json")
    said = shell("predict", detector_run, sets.new, *words)
    assert said.code == 0
    assert json.loads((out / "predictions.json").read_text()) == said.document
    images = said.document["images"]
    assert [Path(p["path"]).name for p in images] == ["new-0.jpg", "new-1.jpg"]
    for image in images:
        with Image.open(image["path"]) as given, Image.open(image["drawn"]) as drawn:
            assert given.size == drawn.size == (image["width"], image["height"])
            assert given.tobytes() != drawn.tobytes()
    found = sum(len(p["detections"]) for p in images)
    assert found > 0
    assert len(json.loads((out / "predictions.coco.json").read_text())) == found
    with (out / "predictions.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == found


def test_predict_with_a_classifier(shell, sets: DemoSets, classifier_run: Path, tmp_path: Path) -> None:
    said = shell("predict", classifier_run, f"{sets.class_new}/*.jpg", "--out", tmp_path)
    assert said.code == 0
    assert "digit-0.jpg" in said.out
    images = json.loads((tmp_path / "predictions.json").read_text())["images"]
    assert [len(p["classes"]) for p in images] == [5, 5, 5]
    assert {p.name for p in tmp_path.glob("*.jpg")} == {f"digit-{i}.jpg" for i in range(3)}


def test_a_bad_image_does_not_stop_the_others(
    shell, sets: DemoSets, classifier_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(sets.class_new, folder)
    whole = (folder / "digit-1.jpg").read_bytes()
    (folder / "digit-1.jpg").write_bytes(whole[: len(whole) // 2])
    said = shell("predict", classifier_run, folder, "--out", tmp_path / "out", "--json")
    assert said.code == 2
    assert [Path(p["path"]).name for p in said.document["images"]] == ["digit-0.jpg", "digit-2.jpg"]
    assert [Path(p["path"]).name for p in said.document["failed"]] == ["digit-1.jpg"]
    complaints = [line for line in said.err.splitlines() if line.startswith("sppnet: ")]
    assert len(complaints) == 1
    assert "digit-1.jpg" in complaints[0]


def test_mistakes_in_predicting(refused, sets: DemoSets, classifier_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    assert "none.jpg" in refused("predict", classifier_run, tmp_path / "none.jpg", "--out", out)
    assert "empty" in refused("predict", classifier_run, tmp_path / "empty", "--out", out)
    assert "SOURCE" in refused("predict", classifier_run, "--out", out)
    assert "xml" in refused("predict", classifier_run, sets.class_new, "--formats", "xml", "--out", out)
    assert "--formats" in refused("predict", classifier_run, sets.class_new, "--formats", "csv", "--out", out)
    (tmp_path / "file").touch()
    assert "file" in refused("predict", classifier_run, sets.class_new, "--out", tmp_path / "file")
    assert not out.exists()


def test_names_of_drawn_images_differ() -> None:
    paths = [Path(p) for p in ("a/1.jpg", "b/1.png", "c/1.JPG", "a/1-2.jpg", "b/X.png", "b/x.png")]
    names = free_names(paths)
    assert list(names) == paths
    assert len({name.lower() for name in names.values()}) == len(paths)
    assert names[paths[0]] == "1.jpg"

from __future__ import annotations

from pathlib import Path

from sppnet.recipes.demo_data import DemoSets


def test_tiles_of_a_run_that_was_fitted_without(
    shell, sets: DemoSets, detector_run: Path, tmp_path: Path
) -> None:
    image = next(sets.new.glob("*.jpg"))

    def found(*words: object) -> dict:
        out = tmp_path / "-".join(map(str, ("out", *words)))
        said = shell("predict", detector_run, image, *words, "--threshold", 0.1, "--out", out, "--json")
        assert said.code == 0
        return said.document["images"][0]

    whole, one_tile = found(), found("--tile", 4000)
    assert whole["detections"] == one_tile["detections"] != []
    tiled = found("--tile", 256, "--overlap", 0.5)
    assert all(0 <= d["box"][0] < d["box"][2] <= tiled["width"] for d in tiled["detections"])
    assert max(d["box"][2] for d in tiled["detections"]) > 256


def test_mistakes(refused, sets: DemoSets, detector_run: Path, classifier_run: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert "options.tile" in refused("predict", detector_run, sets.new, "--tile", 5, *out)
    assert "options.overlap" in refused(
        "predict", detector_run, sets.new, "--tile", 64, "--overlap", 1.5, *out
    )
    assert "--tile" in refused("predict", classifier_run, sets.class_new, "--tile", 64, *out)
    assert "--tile" in refused("evaluate", classifier_run, sets.classification, "--tile", 64)
    assert not (tmp_path / "out").exists()

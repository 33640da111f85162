"""Machine-readable output has the keys that other people's code relies on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppnet import Classifier, Detector
from sppnet.benchmark import fitting
from sppnet.cli.commands import all_commands
from sppnet.cli.shell import VERBS
from sppnet.recipes.demo_data import DemoSets


def test_evaluate_is_the_mapping_of_evaluate(
    shell, sets: DemoSets, detector_run: Path, classifier_run: Path
) -> None:
    said = shell("evaluate", detector_run, sets.detection, "--json").document
    metrics = Detector.load(detector_run).evaluate(sets.detection, quiet=True)
    assert metrics.keys() <= said.keys()
    assert said["AP50"] == metrics["AP50"]
    assert {"AP50", "AP75", "AP", "per_class"} <= said.keys()
    said = shell("evaluate", classifier_run, sets.classification, "--json").document
    metrics = Classifier.load(classifier_run).evaluate(sets.classification, quiet=True)
    assert metrics.keys() <= said.keys()
    assert {"accuracy", "mean_class_accuracy", "top5"} <= said.keys()


def test_every_command_has_json() -> None:
    commands = [command for command in all_commands(VERBS) if command.flags is not None]
    assert [c.name for c in commands if "--json" not in {flag.name for flag in c.table()}] == []


@pytest.mark.parametrize("verb", ["check", "backbones"])
def test_json_is_one_document_and_nothing_else(shell, verb: str) -> None:
    said = shell(verb, "--json")
    assert said.code == 0
    assert isinstance(said.document, dict)


def test_fit_has_seconds_by_stage_counts_and_memory(detector_run: Path, classifier_run: Path) -> None:
    found = Detector.load(detector_run).summary_
    assert {"features", "mining", "svm", "regression", "total"} <= found["seconds"].keys()
    assert {"images", "windows", "peak_memory_mb"} <= found.keys()
    found = Classifier.load(classifier_run).summary_
    assert {"features", "svm", "total"} <= found["seconds"].keys()
    assert {"images", "windows", "peak_memory_mb"} <= found.keys()


def test_benchmark_fitting_has_its_two_ratios(monkeypatch, sets: DemoSets, tmp_path: Path) -> None:
    ours = {"fit_s": 6.0, "seconds": {"features": 2.0, "total": 6.0}}
    monkeypatch.setattr(fitting, "fit_once", lambda task: ours)
    monkeypatch.setattr(fitting.Detector, "load", lambda folder: None)
    monkeypatch.setattr(fitting, "_prediction", lambda *_: {"network": 20.0, "all of predict": 50.0})
    request = fitting.FittingRequest(
        sets.detection, None, (), "builtin", None, parts=("prediction",), out=tmp_path
    )
    found = fitting.run(request)
    assert (found["fit_over_pass"], found["predict_over_network"]) == (3.0, 2.5)
    assert found["rows"] == []
    assert "cores" in found["machine"]


def test_reproduce_rows_have_the_papers_figure_ours_and_the_deviation(
    shell, sets: DemoSets, tmp_path: Path
) -> None:
    words = ("--data", sets.classification, "--out", tmp_path, "--backbone", "builtin", "--quick", "--json")
    found = shell("reproduce", "table7", *words).document
    assert {"table", "data", "rows"} <= found.keys()
    assert found["table"] == "table7"
    assert found["rows"]
    for row in found["rows"]:
        assert {"setting", "paper", "ours", "deviation", "note", "unit"} <= row.keys()
        assert isinstance(row["ours"], float)
        assert isinstance(row["deviation"], float)

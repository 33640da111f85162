from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_command_that_reads_images_takes_the_limit_of_megapixels(
    refused, sets, detector_run: Path, tmp_path: Path
) -> None:
    limit = ("--max-megapixels", 0.01)
    commands = [
        ("fit", "detect", sets.detection, "--out", tmp_path / "a", "--backbone", "builtin"),
        ("fit", "classify", sets.classification, "--out", tmp_path / "b", "--backbone", "builtin"),
        ("train", "classify", sets.classification, "--out", tmp_path / "c"),
        ("evaluate", detector_run, sets.detection),
    ]
    for words in commands:
        assert "at most 10,000 pixels" in refused(*words, *limit)
        assert "--max-megapixels: expected a number above 0" in refused(*words, "--max-megapixels", 0)
    assert "SPPNET_MAX_MEGAPIXELS" not in os.environ


def test_features_of_images_above_the_limit_are_reported(shell, sets, tmp_path: Path) -> None:
    words = ("features", sets.detection, "--out", tmp_path / "f.npy", "--backbone", "builtin")
    said = shell(*words, "--max-megapixels", 0.01)
    assert said.code == 2
    assert "at most 10,000 pixels" in said.err

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sppnet.cli import main
from sppnet.recipes.demo_data import DemoSets, DemoSize, write_demo_data

DETECT = [
    "--backbone=builtin", "--short-side=160", "--windows=400", "--mining-rounds=1", "--rows=2000",
    "--iou-head=16", "--device=cpu",
]  # fmt: skip
CLASSIFY = ["--backbone", "builtin", "--levels", "2", "1", "--device", "cpu"]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run one command in this process."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        heard = capsys.readouterr()
        return Said(code, heard.out, heard.err)

    return run


@pytest.fixture
def refused(shell: Callable[..., Said]) -> Callable[..., str]:
    """Run a command that must fail as a user's mistake does: code 2, one line on stderr, nothing else."""

    def run(*words: object) -> str:
        said = shell(*words)
        assert said.code == 2, said
        assert said.out == ""
        lines = said.err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("sppnet: ")
        return lines[0]

    return run


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> DemoSets:
    size = DemoSize(train=6, test=3, class_train=3, class_test=2, new=2, class_new=3)
    return write_demo_data(tmp_path_factory.mktemp("data"), 0, size, quiet=True)


@pytest.fixture(scope="session")
def detector_run(sets: DemoSets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "detector"
    assert main(["fit", "detect", str(sets.detection), "--out", str(run), *DETECT]) == 0
    return run


@pytest.fixture(scope="session")
def classifier_run(sets: DemoSets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "classifier"
    assert main(["fit", "classify", str(sets.classification), "--out", str(run), *CLASSIFY]) == 0
    return run

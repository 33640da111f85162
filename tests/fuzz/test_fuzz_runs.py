from __future__ import annotations

import os
from pathlib import Path

import kill_outputs
import kill_saves
import pytest
import run_folders


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> run_folders.Target:
    return run_folders.Target(tmp_path_factory.mktemp("runs"))


def test_changed_runs_work_or_are_refused(target: run_folders.Target) -> None:
    outcomes = {target.execute(5, number) for number in range(150)}
    assert outcomes == {"works", "UserError"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_save_loses_and_blocks_nothing(tmp_path: Path) -> None:
    kinds = kill_saves.estimator_kinds(kill_saves.make_data(tmp_path / "data"))
    for name in ("classifier, over another run", "network, new", "metrics and report"):
        outcomes = kill_saves.run_kind(kinds[name], tmp_path / name, 4, 3)
        assert outcomes.keys() <= {"killed", "finished before the kill"}, (name, outcomes)


OUTPUTS = {
    "features": lambda data: kill_outputs.features_kind(data, "f.npy", again=True),
    "export": kill_outputs.export_kind,
    "converted weights": lambda _: kill_outputs.weights_kind(),
    "cached stages": lambda _: kill_outputs.stages_kind(),
    "data set": kill_outputs.data_kind,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_killed_output_loses_and_blocks_nothing(name: str, tmp_path: Path) -> None:
    kind = OUTPUTS[name](kill_saves.make_data(tmp_path / "data"))
    outcomes = kill_saves.run_kind(kind, tmp_path / "kills", 5, 3)
    assert outcomes.keys() <= {"killed", "finished before the kill"}, outcomes

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

ROW = {
    "work": "2000 regions",
    "ours_s": 0.0145,
    "peer": "torchvision.roi_pool",
    "peer_s": 0.86,
    "ratio": 59.3,
}
FOUND = {
    "machine": {"cores": 2},
    "rows": [ROW],
    "floor_ratio": 2.4,
    "growth": [{"regions": 250, "ours_s": 0.0321}],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, Path | None]]:
    """Stands in for the measuring, which takes its time, and notes what it was asked."""
    asked: list[tuple[bool, Path | None]] = []

    def run(*, quick: bool, plot: Path | None) -> dict[str, object]:
        asked.append((quick, plot))
        return FOUND

    room, pooling = types.ModuleType("sppnet.benchmark"), types.ModuleType("sppnet.benchmark.pooling")
    room.pooling, pooling.run = pooling, run
    monkeypatch.setitem(sys.modules, "sppnet.benchmark", room)
    monkeypatch.setitem(sys.modules, "sppnet.benchmark.pooling", pooling)
    return asked


def test_benchmark_shows_and_tells(shell, asked: list[tuple[bool, Path | None]]) -> None:
    said = shell("benchmark", "pooling", "--quick")
    assert said.code == 0
    for word in (
        "2000 regions",
        "0.0145",
        "torchvision.roi_pool",
        "59.3",
        "machine.cores",
        "floor_ratio",
        "0.0321",
    ):
        assert word in said.out
    assert shell("benchmark", "pooling", "--plot", "p.png", "--json").document == FOUND
    assert asked == [(True, None), (False, Path("p.png"))]

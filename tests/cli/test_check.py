from __future__ import annotations

import pytest
import torch

from sppnet.cli import installation


def test_check_tells_what_is_there(shell) -> None:
    said = shell("check", "--json")
    assert said.code == 0
    found = said.document
    assert found["ok"] is True
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert set(found["kernels"]) == {"cpu", "triton"}
    assert {"plot", "selective-search"} <= set(found["optional"])
    table = shell("check").out
    for word in ("torch", "numba", "threads", "equals adaptive_max_pool2d"):
        assert word in table


def test_absent_parts_come_with_the_line_that_installs_them(shell, monkeypatch: pytest.MonkeyPatch) -> None:
    known = installation._version
    monkeypatch.setattr(installation, "_version", lambda name: None if name == "matplotlib" else known(name))
    assert (
        shell("check", "--json").document["optional"]["plot"]
        == "not installed: matplotlib; pip install 'sppnet[plot]'"
    )


def test_wrong_pooling_is_told(shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden_relu(maps: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
        return installation._expected(maps.relu(), levels)

    monkeypatch.setattr(installation, "spatial_pyramid_pool", hidden_relu)
    said = shell("check", "--json")
    assert said.code == 1
    assert said.document["ok"] is False
    assert "whole map 1 x 1" in said.document["pooling"]

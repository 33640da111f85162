from __future__ import annotations

import json

import pytest
import torch

from sppnet.backbones import load_backbone
from sppnet.benchmark import backbones
from sppnet.structures import ImageSize


def test_rows_cover_threads_and_precisions() -> None:
    before = torch.get_num_threads()
    found = backbones.run(ImageSize(40, 56), threads=(1, 2), runs=1)
    assert torch.get_num_threads() == before
    rows = found["rows"]
    assert isinstance(rows, list)
    assert len({(row["work"], row["peer"]) for row in rows}) == 8
    for row in rows:
        assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
        assert row["peer"].startswith(backbones.PEER)
    json.dumps(found)


def test_multiply_adds_equal_a_manual_count() -> None:
    # builtin at 16x16: maps of 8x8, 4x4, 2x2 and 1x1 cells.
    steps = 8 * 8 * 32 * 27 + 4 * 4 * (64 * 32 * 9 + 2 * 64 * 32 + 32 * 32 * 9)
    fine = 2 * 2 * (192 * 64 * 9 + 4 * (2 * 192 * 64 + 64 * 64 * 9) + 192 * 48 + 192 * 96)
    coarse = 256 * 96 * 9 + 2 * (2 * 256 * 96 + 96 * 96 * 9) + 256 * 120
    deep = 256 * 128 + 128 * 384 * 9 + 2 * (2 * 384 * 128 + 128 * 128 * 9) + 384 * 352
    backbone = load_backbone("random:builtin")
    assert backbones.multiply_adds(backbone, ImageSize(16, 16)) == steps + fine + coarse + deep


def test_the_command_prints_one_json_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(runs: int) -> dict[str, object]:
        return {"rows": [], "runs": runs}

    monkeypatch.setattr(backbones, "run", fake)
    monkeypatch.setattr("sys.argv", ["backbones", "--runs", "3"])
    backbones.main()
    assert json.loads(capsys.readouterr().out) == {"rows": [], "runs": 3}

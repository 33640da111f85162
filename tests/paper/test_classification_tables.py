from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet.errors import UserError
from sppnet.paper.classification import TABLES
from sppnet.paper.tables import Request
from sppnet.paper.transfer import mean_ap


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    chance = np.random.default_rng(0)
    for split, each in (("train", 8), ("test", 10)):
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(each):
                pixels = chance.integers(0, 60, (40, 50, 3), dtype=np.uint8)
                pixels[..., label] += 160
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def request(data: Path, out: Path) -> Request:
    return Request(data, out, "zf5-small/32", device="cpu", quick=True, quiet=True)


def test_tables_2_to_4_share_their_networks(data: Path, tmp_path: Path) -> None:
    asked = request(data, tmp_path)
    two = TABLES["table2"](asked)
    told = {row.setting: row for row in two.rows}
    assert told["SPP multi-size, 10 views, top-1"].paper == 34.60
    assert len(told) == 3 * 2 + 2 * 2
    assert all(row.ours is not None and 0 <= row.ours <= 100 for row in two.rows)
    assert two.plot is not None
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert len(written) == 3
    three, four = TABLES["table3"](asked), TABLES["table4"](asked)
    assert [row.paper for row in three.rows] == [38.01, 37.55, 37.57, 37.07]
    assert len(four.rows) == 8
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_table_7_of_colours_is_all_right(data: Path, tmp_path: Path) -> None:
    table = TABLES["table7"](request(data, tmp_path))
    assert {row.setting for row in table.rows} == {
        f"{sight} 224, {name}" for sight in ("crop", "full", "warp") for name in ("one bin", "6x6", "SPP")
    }
    assert max(row.ours or 0 for row in table.rows) > 90


@pytest.mark.parametrize("table", ["table2", "table6", "table7"])
def test_missing_data_are_named_with_their_page(tmp_path: Path, table: str) -> None:
    with pytest.raises(UserError, match="Download it from http"):
        TABLES[table](request(tmp_path / "none", tmp_path))


def test_difficult_images_do_not_count() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    assert mean_ap(scores, torch.tensor([[0], [1], [-1]])) == 1.0
    assert mean_ap(scores, torch.tensor([[-1], [1], [-1]])) == pytest.approx(0.5)

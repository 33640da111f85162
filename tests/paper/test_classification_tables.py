from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet.benchmark.measure import grow
from sppnet.errors import UserError
from sppnet.paper import transfer
from sppnet.paper.classification import TABLES
from sppnet.paper.tables import Request, Source, row_note
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
    assert told["SPP single-size, 30 bins, 10 views, top-5"].paper == 14.04
    assert told["SPP random size, 10 views, top-1"].paper is None  # the paper's is of Overfeat-7
    assert len(told) == 5 * 2 + 4 * 2
    note = f"the paper's is zf5 on ILSVRC 2012, ours zf5-small/32 on {data.name}"
    assert all((row.paper is not None) == (note in row.note) for row in two.rows)
    assert all(row.ours is not None and 0 <= row.ours <= 100 for row in two.rows)
    assert two.plot is not None
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert len(written) == 5
    three, four = TABLES["table3"](asked), TABLES["table4"](asked)
    assert [row.paper for row in three.rows] == [38.01, 37.55, 37.57, 37.07]
    assert len(four.rows) == 8
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_table_7_classifies_colours_correctly(data: Path, tmp_path: Path) -> None:
    table = TABLES["table7"](request(data, tmp_path))
    assert {row.setting for row in table.rows} == {
        f"{sight} 224, {name}" for sight in ("crop", "full", "warp") for name in ("one bin", "6x6", "SPP")
    }
    assert max(row.ours or 0 for row in table.rows) > 90


COUNT, LENGTH = 100, 200_000


def memory_of_features(data: Path, out: Path, answers: Any) -> None:
    """Put the shape of features and the growth of memory, in MB, while they are computed."""
    transfer.image_rows = lambda *_: {"SPP": torch.ones(LENGTH)}
    source = transfer.pretrained(request(data, out))
    images = [next(data.rglob("*.png"))] * COUNT
    found: list[dict[str, torch.Tensor]] = []
    grown = grow(lambda: found.append(transfer.sight_features(source, images, "full", 40, quiet=True)))
    answers.put((tuple(found[0]["SPP"].shape), grown))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak memory")
def test_features_are_stored_once(data: Path, tmp_path: Path) -> None:
    """In a process of its own: freed memory of other tests would hide what is allocated."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=memory_of_features, args=(data, tmp_path, answers))
    child.start()
    shape, grown = answers.get(timeout=300)
    child.join()
    features = 4 * COUNT * LENGTH / 2**20
    assert shape == (COUNT, LENGTH)
    assert 0.5 * features < grown < 1.4 * features


def test_networks_of_the_paper_subtract_128(data: Path, tmp_path: Path) -> None:
    asked = request(data, tmp_path)
    ours = transfer.pretrained(asked)
    assert ours.network.mean.flatten().tolist() == pytest.approx([128 / 255] * 3)
    assert "less 128" in ours.differs
    other = transfer.pretrained(replace(asked, backbone="builtin"))
    assert other.network.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_a_row_of_the_same_network_and_data_has_no_note() -> None:
    theirs = Source("zf5", "VOC 2007")
    assert row_note(43.0, theirs, theirs) == ""
    assert row_note(43.0, theirs, Source("zf5", "bccd"), "", "one run").endswith("ours zf5 on bccd; one run")
    assert row_note(None, theirs, Source("builtin", "bccd"), "one run") == "one run"


@pytest.mark.parametrize("table", ["table2", "table6", "table7"])
def test_missing_data_are_reported_with_their_source(tmp_path: Path, table: str) -> None:
    with pytest.raises(UserError, match="Download it from http"):
        TABLES[table](request(tmp_path / "none", tmp_path))


def test_difficult_images_are_ignored() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    assert mean_ap(scores, torch.tensor([[0], [1], [-1]])) == 1.0
    assert mean_ap(scores, torch.tensor([[-1], [1], [-1]])) == pytest.approx(0.5)

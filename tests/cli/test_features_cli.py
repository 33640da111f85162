from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FAST = ["--backbone", "builtin", "--layers", "stride8", "--levels", "1", "--device", "cpu"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_features_of_a_folder(shell, photos: Path, tmp_path: Path) -> None:
    said = shell("features", photos, "--out", tmp_path / "f.npy", "--json", *FAST)
    assert said.code == 0
    assert "images/s" in said.err
    rows = np.load(tmp_path / "f.npy")
    assert said.document == {
        "out": str(tmp_path / "f.npy"),
        "index": str(tmp_path / "f.npy.index.jsonl"),
        "images": 3,
        "rows": len(rows),
        "length": rows.shape[1],
        "failed": [],
    }
    again = shell("features", photos, "--out", tmp_path / "f.npy", "--json", *FAST)
    assert again.document == said.document


def test_boxes_of_a_proposals_file_and_a_broken_image(shell, photos: Path, tmp_path: Path) -> None:
    (photos / "b.jpg").write_bytes(b"no image")
    boxes = {"a.png": [[1, 2, 30, 20], [0, 0, 40, 30]], "c.png": [[3, 3, 9, 9]], "b.jpg": [[0, 0, 4, 4]]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    words = ("--boxes", tmp_path / "boxes.json", "--dtype", "float16")
    said = shell("features", f"{photos}/*", "--out", tmp_path / "f.npy", *words, *FAST)
    assert said.code == 2
    assert next(line for line in said.err.splitlines() if line.startswith("sppnet: ")).count("b.jpg") == 1
    assert np.load(tmp_path / "f.npy").dtype == np.float16
    index = [json.loads(line) for line in (tmp_path / "f.npy.index.jsonl").read_text().splitlines()]
    assert [line["box"] for line in index] == [*boxes["a.png"], *boxes["c.png"]]


def test_mistakes(refused, photos: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "f.npy", *FAST)
    assert "SOURCE" in refused("features", *out)
    assert "none.jpg" in refused("features", tmp_path / "none.jpg", *out)
    assert ".npy or .parquet" in refused("features", photos, "--out", tmp_path / "f.csv", *FAST)
    assert "none.json" in refused("features", photos, "--boxes", tmp_path / "none.json", *out)
    assert "layers" in refused("features", photos, "--out", tmp_path / "f.npy", "--layers", "stride9")
    assert "scales" in refused("features", photos, "--scales", 3, *out)
    assert "backbone" in refused("features", photos, *out, "--backbone", "resnet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]


def test_images_that_exceed_memory_are_reported(shell, photos: Path, tmp_path: Path) -> None:
    # The resized image would have more bytes than a process can address.
    words = ("features", photos, "--out", tmp_path / "f.npy", "--backbone", "builtin", "--scales", 10**7)
    said = shell(*words)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert "expected an image that fits into memory" in said.err
    assert not (tmp_path / "f.npy.parts").exists()

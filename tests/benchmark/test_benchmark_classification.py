from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from sppnet.benchmark.classification import AdaptivePyramid, run
from sppnet.benchmark.views import views_accuracy
from sppnet.ops import spatial_pyramid_pool


def test_every_row_has_two_times_and_their_ratio() -> None:
    found = run(runs=1, quick=True)
    rows = found["rows"]
    assert isinstance(rows, list)
    assert len(rows) == 3
    for row in rows:
        assert row["ratio"] == row["peer_s"] / row["ours_s"]
        assert row["ours_s"] > 0


def test_the_peer_pools_the_same_values() -> None:
    maps = torch.rand(2, 3, 13, 10)
    assert torch.equal(AdaptivePyramid()(maps), spatial_pyramid_pool(maps))


def test_ten_views_classify_images_by_colour(tmp_path: Path) -> None:
    colours = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
    for part, count in (("train", 2), ("test", 1)):
        for name, colour in colours.items():
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                shade = tuple(channel + 5 * number for channel in colour)
                Image.new("RGB", (80 + 10 * number, 60), shade).save(folder / f"{number}.png")
    found = views_accuracy(tmp_path, "builtin", None, quiet=True)
    assert found["images"] == 3
    assert found["top1_crops"] == found["top1_maps"] == 0
    assert found["only_crops"] == found["only_maps"] == 0

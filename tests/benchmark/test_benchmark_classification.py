from __future__ import annotations

import torch

from sppnet.benchmark.classification import AdaptivePyramid, run
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

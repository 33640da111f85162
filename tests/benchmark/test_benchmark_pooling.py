import torch

from sppnet.benchmark import pooling
from sppnet.benchmark.measure import machine, medians


def test_a_quick_run_has_the_documented_form(tmp_path):
    found = pooling.run(quick=True, plot=tmp_path / "growth.png")
    assert set(found["machine"]) >= {"cores", "threads", "torch"}
    assert len(found["rows"]) == 9
    for row in found["rows"]:
        assert row["ratio"] == row["peer_s"] / row["ours_s"]
        assert row["ours_s"] > 0
    assert found["floor_ratio"] > 0
    growing = {row["growing"] for row in found["growth"]}
    assert growing == {"regions", "regions, large map", "channels", "bins"}
    for row in found["growth"]:
        assert row["output_mb"] == row["regions"] * row["channels"] * row["bins"] * 4 / 2**20
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_random_regions_are_inside_the_map_and_not_empty():
    regions = pooling.random_regions(500, 7, 9)
    assert bool((regions[:, :2] >= 0).all())
    assert bool((regions[:, :2] < regions[:, 2:]).all())
    assert regions[:, 2].max() == 9
    assert regions[:, 3].max() == 7
    assert torch.equal(regions, pooling.random_regions(500, 7, 9))


def test_medians_interleave_runs():
    calls = []
    medians(lambda: calls.append("a"), lambda: calls.append("b"), 3)
    assert calls == ["a", "a", "b", "b"] * 3
    calls.clear()
    medians(lambda: calls.append("a"), lambda: calls.append("b"), 1, 0.01)
    assert calls[:8] == ["a", "a", "b", "b"] * 2
    assert machine()["threads"] == torch.get_num_threads()

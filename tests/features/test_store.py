import pytest
import torch

from sppnet.features.store import MapStore, sample_cells
from sppnet.structures import FeatureMap, FeatureMaps, Grid, ImageSize

SIZE = ImageSize(32, 48)


def maps(seed):
    values = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(seed))
    return FeatureMaps((FeatureMap(values, "l", Grid(8, 4), SIZE, SIZE),))


@pytest.mark.parametrize("limit", [0, 500, 10**9])
def test_what_was_added_comes_back_in_bfloat16_from_memory_or_disk(limit):
    with MapStore(limit) as store:
        for seed in range(4):
            store.add(maps(seed))
        size = 5 * 4 * 6 * 2
        assert store.bytes_in_memory + store.bytes_on_disk == 4 * size
        assert store.bytes_in_memory <= limit
        for seed in range(4):
            kept = store[seed].maps[0]
            assert torch.equal(kept.values, maps(seed).maps[0].values.bfloat16())
            assert kept.values.stride(0) == 1
            assert kept.grid == Grid(8, 4)


def test_the_file_on_disk_goes_with_the_store():
    with MapStore(0) as store:
        store.add(maps(0))
        file = store._file
        assert file is not None
        assert not file.closed
    assert file.closed
    assert len(store) == 0


def test_what_lies_on_disk_takes_no_memory():
    with MapStore(0) as store:
        store.add(maps(0))
        assert store._maps[0].maps[0].values.untyped_storage().nbytes() == 2


def test_the_store_does_not_keep_the_callers_tensor():
    given = maps(1)
    given.maps[0].values.data = given.maps[0].values.bfloat16()
    with MapStore(10**9) as store:
        store.add(given)
        before = store[0].maps[0].values.clone()
        given.maps[0].values.zero_()
        assert torch.equal(store[0].maps[0].values, before)


def test_sampled_cells_are_cells():
    with MapStore(10**9) as store:
        store.add(maps(0))
        store.add(maps(1))
        cells = sample_cells(store, "l", 1000, [1])
        assert torch.equal(cells, maps(1).maps[0].values.bfloat16().float().flatten(1).T)
        assert 4 <= len(sample_cells(store, "l", 4, [0, 1])) <= 6

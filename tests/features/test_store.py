import pytest
import torch

from sppnet.features.store import StageStore, sample_cells
from sppnet.structures import FeatureMap, FeatureMaps, Grid, ImageSize

SIZE = ImageSize(32, 48)


def tensors(seed):
    draw = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(4, 6, 5, generator=draw).bfloat16(), "b": torch.arange(seed + 1)}


def never():
    raise AssertionError("made twice")


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in expected)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("limit", [0, 600, 10**9])
def test_what_was_made_comes_back_from_memory_or_disk(tmp_path, limit, folder):
    with StageStore(limit, tmp_path if folder else None) as store:
        for seed in range(4):
            assert same(store.get("maps", str(seed), lambda seed=seed: tensors(seed)), tensors(seed))
        assert store.made == 4
        assert store.bytes_in_memory <= limit
        total = sum(t.numel() * t.element_size() for seed in range(4) for t in tensors(seed).values())
        if not folder:
            assert store.bytes_in_memory + store.bytes_on_disk == total == store.stage_bytes("maps")
        for seed in (2, 0, 3, 1, 1):
            assert same(store.get("maps", str(seed), never), tensors(seed))
    if folder:
        with StageStore(limit, tmp_path) as later:
            assert same(later.get("maps", "3", never), tensors(3))
            assert (later.found, later.made) == (1, 0)


def test_the_file_on_disk_goes_with_the_store():
    with StageStore(0) as store:
        store.get("maps", "1", lambda: tensors(1))
        file = store._file
        assert file is not None
        assert not file.closed
    assert file.closed


def test_what_lies_on_disk_takes_no_memory():
    with StageStore(0) as store:
        store.get("maps", "1", lambda: tensors(1))
        assert store._on_disk["maps", "1"]["a"][1].untyped_storage().nbytes() == 2


def test_without_a_key_nothing_is_cached():
    with StageStore(10**9) as store:
        store.get("maps", "", lambda: tensors(1))
        assert same(store.get("maps", "", lambda: tensors(2)), tensors(2))
        assert store.made == 0


def test_stages_are_apart():
    with StageStore(10**9) as store:
        store.get("maps", "k", lambda: tensors(1))
        assert same(store.get("fc", "k", lambda: tensors(2)), tensors(2))


@pytest.mark.parametrize("limit", [0, 10**9])
def test_the_store_shares_no_memory_with_what_made_or_got_it(limit):
    given = tensors(1)
    with StageStore(limit) as store:
        store.get("maps", "k", lambda: given)
        given["a"].zero_()
        assert same(store.get("maps", "k", never), tensors(1))


def test_empty_tensors_are_cached_too():
    with StageStore(0) as store:
        store.get("fc", "k", lambda: {"rows": torch.zeros(0, 3, dtype=torch.float16)})
        assert store.get("fc", "k", never)["rows"].shape == (0, 3)


def maps(seed):
    values = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(seed))
    return FeatureMaps((FeatureMap(values, "l", Grid(8, 4), SIZE, SIZE),))


def test_sampled_cells_are_cells():
    cells = sample_cells([maps(1)], "l", 1000, 1)
    assert torch.equal(cells, maps(1).maps[0].values.flatten(1).T)
    assert 4 <= len(sample_cells([maps(0), maps(1)], "l", 4, 2)) <= 6

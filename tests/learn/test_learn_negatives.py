from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sppnet.errors import UserError
from sppnet.learn import NegativeCache, NegativeRule


def rows_of(keys: Tensor) -> Tensor:
    """Create features that identify their keys."""
    return torch.stack([keys.float(), -keys.float()], 1)


def test_defaults_are_those_of_the_spp_net_release():
    assert NegativeRule() == NegativeRule(-1.0001, -1.2, 2000, 100_000)


def test_add_takes_scores_above_the_threshold_and_each_key_once():
    keys = torch.tensor([5, 6, 7, 8])
    scores = torch.tensor([-1.0001, -1.0, 0.5, -3.0])
    cache = NegativeCache.empty().add(rows_of(keys), scores, keys)
    assert cache.keys.tolist() == [6, 7]  # float32(-1.0001) is not above itself
    assert cache.rows.tolist() == [[6, -6], [7, -7]]
    assert cache.wanted(torch.zeros(3), torch.tensor([7, 9, 6])).tolist() == [False, True, False]
    more = cache.add(rows_of(keys), torch.zeros(4), keys)
    assert more.keys.tolist() == [6, 7, 5, 8]
    assert more.fresh == 4
    assert cache.keys.tolist() == [6, 7]  # caches are immutable


def test_fit_is_due_after_more_than_refit_after_additions():
    rule = NegativeRule(refit_after=3)
    keys = torch.arange(3)
    cache = NegativeCache.empty(rule).add(rows_of(keys), torch.zeros(3), keys)
    assert not cache.due
    cache = cache.add(rows_of(keys + 3), torch.zeros(3), keys + 3)
    assert cache.due
    after = cache.evict(torch.zeros(6))
    assert not after.due
    assert len(after) == 6


def test_evict_removes_scores_below_the_threshold():
    keys = torch.arange(5)
    cache = NegativeCache.empty().add(rows_of(keys), torch.zeros(5), keys)
    after = cache.evict(torch.tensor([-1.3, -1.1, -9.0, 0.0, -1.1999]))
    assert after.keys.tolist() == [1, 3, 4]
    assert torch.equal(after.rows, rows_of(after.keys))
    none = after.evict(torch.full((3,), -2.0))
    assert len(none) == 0
    assert none.rows.shape == (0, 2)
    assert none.add(rows_of(keys), torch.zeros(5), keys).rows.shape == (5, 2)


def test_a_full_cache_retains_the_highest_scores():
    keys = torch.arange(6)
    rule = NegativeRule(capacity=3)
    cache = NegativeCache.empty(rule).add(rows_of(keys[:4]), torch.tensor([0.1, 0.9, 0.3, 0.2]), keys[:4])
    assert cache.keys.tolist() == [1, 2, 3]
    cache = cache.add(rows_of(keys[4:]), torch.tensor([0.25, 0.0]), keys[4:])
    assert cache.keys.tolist() == [1, 2, 4]
    assert torch.equal(cache.rows, rows_of(cache.keys))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 12))
def test_equals_a_plain_list(seed: int, steps: int, capacity: int):
    """Compare with a list of (key, score) through random sequences of additions and evictions."""
    draw = torch.Generator().manual_seed(seed)
    rule = NegativeRule(refit_after=4, capacity=capacity)
    cache = NegativeCache.empty(rule)
    plain: list[tuple[int, float]] = []
    fresh = 0
    for _ in range(steps):
        keys = torch.randperm(20, generator=draw)[: int(torch.randint(0, 7, (), generator=draw))]
        scores = torch.rand(len(keys), generator=draw) * 2 - 2
        known = {key for key, _ in plain}
        cache = cache.add(rows_of(keys), scores, keys)
        for key, score in zip(keys.tolist(), scores.tolist(), strict=True):
            if score > rule.add_above and key not in known:
                plain.append((key, score))
                fresh += 1
        best = sorted(plain, key=lambda pair: -pair[1])[:capacity]
        plain = [pair for pair in plain if pair in best]
        assert cache.fresh == fresh
        assert cache.due == (fresh > 4)
        if cache.due:
            scores = torch.rand(len(cache), generator=draw) * 2 - 2
            cache = cache.evict(scores)
            plain = [
                (k, s) for (k, _), s in zip(plain, scores.tolist(), strict=True) if s >= rule.evict_below
            ]
            fresh = 0
        assert cache.keys.tolist() == [key for key, _ in plain]
        assert cache.scores.tolist() == [score for _, score in plain]
        if cache.pieces:
            assert torch.equal(cache.rows, rows_of(cache.keys))


def test_invalid_arguments_raise_user_errors():
    keys = torch.arange(3)
    cache = NegativeCache.empty()
    with pytest.raises(UserError, match="none"):
        _ = cache.rows
    with pytest.raises(UserError, match="keys"):
        cache.wanted(torch.zeros(3), keys[:2])
    with pytest.raises(UserError, match="rows"):
        cache.add(torch.zeros(2, 2), torch.zeros(3), keys)
    cache = cache.add(rows_of(keys), torch.zeros(3), keys)
    with pytest.raises(UserError, match="2 columns"):
        cache.add(torch.zeros(3, 4), torch.zeros(3), keys + 3)
    with pytest.raises(UserError, match="scores"):
        cache.evict(torch.zeros(2))
    with pytest.raises(UserError, match="evict_below"):
        NegativeRule(add_above=-1.0, evict_below=0.0)
    with pytest.raises(UserError, match="capacity"):
        NegativeRule(capacity=0)

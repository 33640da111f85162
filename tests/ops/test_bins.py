from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.errors import UserError
from sppnet.ops.bins import bin_edges, check_levels, count_bins, parents

LEVELS = st.lists(st.integers(1, 16), min_size=1, max_size=6)


@given(size=st.integers(1, 10**6), level=st.integers(1, 500))
@settings(deadline=None, max_examples=200)
def test_bins_cover_the_side_and_none_is_empty(size: int, level: int) -> None:
    edges = bin_edges(size, level)
    assert len(edges) == level
    assert edges[0][0] == 0
    assert edges[-1][1] == size
    assert all(stop > start for start, stop in edges)
    # Neighbours leave no gap, and share at most one cell where there are at least as many cells as bins.
    assert all(b[0] <= a[1] for a, b in itertools.pairwise(edges))
    if size >= level:
        assert all(a[1] - b[0] <= 1 for a, b in itertools.pairwise(edges))


@given(size=st.integers(1, 200), level=st.integers(1, 40))
@settings(deadline=None, max_examples=100)
def test_edges_are_floor_and_ceil_of_the_exact_fractions(size: int, level: int) -> None:
    from fractions import Fraction
    from math import ceil, floor

    expected = [
        (floor(Fraction(i * size, level)), ceil(Fraction((i + 1) * size, level))) for i in range(level)
    ]
    assert bin_edges(size, level) == expected


def test_the_paper_pyramid_has_fifty_bins() -> None:
    assert count_bins((6, 3, 2, 1)) == 50
    assert count_bins((4, 3, 2, 1)) == 30


@given(levels=LEVELS)
@settings(deadline=None, max_examples=100)
def test_a_level_is_made_only_from_one_that_it_divides(levels: list[int]) -> None:
    made_from = parents(levels)
    for own, n in enumerate(levels):
        m = levels[made_from[own]]
        assert m % n == 0
        if made_from[own] == own:
            assert not any(other > n and other % n == 0 for other in levels)
    for size in (1, 7, 13, 64):
        for own, n in enumerate(levels):
            m = levels[made_from[own]]
            starts, stops = np.array(bin_edges(size, m)).T
            for i, (start, stop) in enumerate(bin_edges(size, n)):
                q = m // n
                assert starts[i * q] == start
                assert stops[i * q + q - 1] == stop


@pytest.mark.parametrize("levels", [(), (0,), (3, -1), (2.0,), ("6",), (True,), (None,)])
def test_levels_that_are_no_levels_are_named(levels: tuple[object, ...]) -> None:
    with pytest.raises(UserError, match="levels: expected a sequence of integers from 1 to 1024"):
        check_levels(levels)

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.data import batches_of_equal_size
from sppnet.errors import UserError
from sppnet.structures import ImageSize

SIZES = st.builds(ImageSize, st.integers(1, 3), st.integers(1, 3))


@given(st.lists(SIZES, max_size=40), st.integers(1, 6))
@settings(deadline=None, max_examples=100)
def test_batches_have_one_size_and_every_image_once(sizes: list[ImageSize], limit: int) -> None:
    batches = batches_of_equal_size(sizes, limit)
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    for batch in batches:
        assert batch == sorted(batch)
        assert 1 <= len(batch) <= limit
        assert len({sizes[i] for i in batch}) == 1
    assert [batch[0] for batch in batches] == sorted(batch[0] for batch in batches)
    assert len(batches) == sum(-(-sizes.count(size) // limit) for size in set(sizes))


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="limit"):
        batches_of_equal_size([ImageSize(2, 2)], 0)

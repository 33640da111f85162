"""Skinny products against matrix products in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.ops.linear import MOST, curved_products, row_products, row_sums, suits


@given(
    count=st.integers(1, 70),
    length=st.integers(1, 100),
    vectors=st.integers(1, MOST),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_equal_to_matrix_products(count: int, length: int, vectors: int, share: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, length, generator=draw)
    some = torch.randn(vectors, length, generator=draw)
    offsets = torch.randn(vectors, generator=draw)
    factors = torch.randn(vectors, count, generator=draw)
    factors *= torch.rand(vectors, count, generator=draw) < share
    wide, exact = rows.double(), some.double() @ rows.double().T
    torch.testing.assert_close(row_products(rows, some).double(), exact, rtol=1e-5, atol=1e-4)
    got = row_sums(rows, factors)
    torch.testing.assert_close(got.double(), factors.double() @ wide, rtol=1e-5, atol=1e-4)
    multiples = factors.double() * (exact + offsets.double()[:, None])
    sums, total = curved_products(rows, some, offsets, factors)
    torch.testing.assert_close(sums.double(), multiples @ wide, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(total.double(), multiples.sum(1), rtol=1e-5, atol=1e-3)


@pytest.mark.usefixtures("one_thread")
def test_the_same_for_any_number_of_threads() -> None:
    draw = torch.Generator().manual_seed(0)
    rows, some = torch.randn(900, 1003, generator=draw), torch.randn(5, 1003, generator=draw)
    offsets, factors = torch.randn(5, generator=draw), torch.randn(5, 900, generator=draw)
    answers = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        sums, total = curved_products(rows, some, offsets, factors)
        answers.append(torch.cat([sums, total[:, None], row_products(rows, some)], 1))
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_rows_without_a_factor_are_not_read() -> None:
    rows = torch.ones(6, 20)
    rows[3] = torch.nan
    factors = torch.tensor([[1.0, 2.0, 0.0, 0.0, 0.0, 1.0]])
    assert row_sums(rows, factors).tolist() == [[4.0] * 20]


def test_what_suits() -> None:
    rows = torch.ones(6, 20)
    assert suits(rows, 3)
    assert not suits(rows, MOST + 1)
    assert not suits(rows.double(), 3)
    assert not suits(rows.T, 3)
    assert not suits(rows[:0], 3)

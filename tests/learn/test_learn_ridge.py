from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from sppnet.errors import UserError
from sppnet.learn import fit_ridge


@pytest.mark.parametrize(
    ("count", "columns"), [(200, 30), (30, 200), (5000, 7), (7, 5000), (1200, 700), (700, 1200)]
)
@pytest.mark.parametrize("penalty", [1e-2, 10.0, 4000.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_scikit_learn(count: int, columns: int, penalty: float, weighted: bool):
    draw = torch.Generator().manual_seed(count)
    rows = 5 + 3 * torch.rand(count, columns, generator=draw)  # far from centred
    targets = torch.randn(count, 4, generator=draw) - 2
    weight = (
        torch.rand(count, generator=draw) * (torch.rand(count, generator=draw) > 0.2) if weighted else None
    )
    model = fit_ridge(rows, targets, penalty, weight)
    expected = Ridge(penalty, solver="svd").fit(
        rows.double().numpy(), targets.double().numpy(), None if weight is None else weight.double().numpy()
    )
    size = np.linalg.norm(expected.coef_)
    assert np.linalg.norm(model.weight.double().numpy() - expected.coef_) < 2e-5 * size
    fitted = model.scores(rows).double().numpy()
    assert np.abs(fitted - expected.predict(rows.double().numpy())).max() < 1e-4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 10), st.integers(1, 10), st.floats(1e-3, 1e3))
def test_satisfies_the_normal_equations(seed: int, count: int, columns: int, penalty: float):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(-3, 4, (count, columns), generator=draw).double()
    targets = torch.randn(count, 2, generator=draw, dtype=torch.float64)
    weight = torch.randint(0, 3, (count,), generator=draw).double()
    weight[0] = 1
    model = fit_ridge(rows, targets, penalty, weight)
    residual = (model.scores(rows) - targets) * weight[:, None]
    assert torch.allclose(
        rows.T @ residual + penalty * model.weight.T, torch.zeros(columns, 2).double(), atol=1e-9
    )
    assert torch.allclose(residual.sum(0), torch.zeros(2).double(), atol=1e-9)


def test_recovers_a_line_and_does_not_penalise_the_intercept():
    rows = torch.linspace(-1, 1, 50)[:, None]
    model = fit_ridge(rows, 3 * rows + 100, 1e-6)
    assert model.weight.item() == pytest.approx(3, rel=1e-4)
    assert model.bias.item() == pytest.approx(100, rel=1e-6)
    heavy = fit_ridge(rows, 3 * rows + 100, 1e9)
    assert heavy.weight.item() == pytest.approx(0, abs=1e-6)
    assert heavy.bias.item() == pytest.approx(100, rel=1e-6)


def test_duplicate_columns_and_a_single_sample():
    rows = torch.rand(400, 3).repeat(1, 40)
    model = fit_ridge(rows, rows[:, :1] * 2, 1e-6)
    assert (model.scores(rows) - rows[:, :1] * 2).abs().max() < 1e-3
    single = fit_ridge(torch.rand(1, 5), torch.tensor([[7.0]]), 1.0)
    assert single.weight.abs().max() == 0
    assert single.bias.item() == 7


def test_invalid_arguments_raise_user_errors():
    rows, targets = torch.rand(6, 3), torch.rand(6, 2)
    with pytest.raises(UserError, match=r"targets.*\[6, T\]"):
        fit_ridge(rows, targets[:5], 1.0)
    with pytest.raises(UserError, match="penalty"):
        fit_ridge(rows, targets, 0.0)
    with pytest.raises(UserError, match=r"weight.*\[6\]"):
        fit_ridge(rows, targets, 1.0, torch.ones(5))
    for invalid in (-torch.ones(6), torch.zeros(6), torch.full((6,), float("nan"))):
        with pytest.raises(UserError, match="weight"):
            fit_ridge(rows, targets, 1.0, invalid)
    with pytest.raises(UserError, match="targets"):
        fit_ridge(rows, targets.log().mul(0).div(0), 1.0)
    with pytest.raises(UserError, match=r"rows\[2\]"):
        fit_ridge(rows.index_fill(0, torch.tensor(2), float("inf")), targets, 1.0)

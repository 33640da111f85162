"""Training of the MLP."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from sppnet.errors import UserError
from sppnet.learn import MLPOptions, fit_mlp, fit_ridge


def _table(count: int = 2000) -> tuple[Tensor, Tensor]:
    """Create features that are neither centred nor scaled, and a target that is not linear in them."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(count, 6, generator=draw)
    return rows * 30 + 500, (rows[:, :1] * rows[:, 1:2]).sign()


def _fit(rows: Tensor, goals: Tensor, seed: int = 0) -> Tensor:
    options = MLPOptions(64, 30, (1, 2000), rate=1e-2, decay=0.0, dropout=0.1)
    draw = torch.Generator().manual_seed(seed)
    found = fit_mlp(rows.clone(), 1, lambda out, index: mse_loss(out, goals[index]), options, draw)
    return found.outputs(rows)


def test_mlp_fits_a_function_that_a_linear_model_cannot() -> None:
    rows, goals = _table()
    linear = fit_ridge(rows, goals, 1e-3).scores(rows)
    assert float(mse_loss(linear, goals)) > 0.9
    assert float(mse_loss(_fit(rows, goals), goals)) < 0.5


def test_fits_with_equal_seeds_are_equal() -> None:
    rows, goals = _table(300)
    assert torch.equal(_fit(rows, goals), _fit(rows, goals))
    assert not torch.equal(_fit(rows, goals), _fit(rows, goals, seed=1))


def test_fewer_samples_than_a_batch() -> None:
    rows, goals = _table(3)
    assert bool(torch.isfinite(_fit(rows, goals)).all())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("neurons", 0),
        ("epochs", 0),
        ("steps", (5, 4)),
        ("batch", 0),
        ("rate", 0.0),
        ("decay", -1.0),
        ("dropout", 1.0),
    ],
)
def test_options_out_of_range_raise_user_errors(field: str, value: object) -> None:
    with pytest.raises(UserError, match=f"MLPOptions.{field}"):
        MLPOptions(**{field: value})

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from sppnet.errors import UserError
from sppnet.learn import fit_sigmoid


def scores_and_truth(seed: int, count: int = 300) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, generator=draw) * 2
    probability = torch.sigmoid(1.5 * scores - 1)
    return scores, torch.rand(count, generator=draw) < probability


def test_equals_scikit_learns_calibration():
    from sklearn.calibration import _SigmoidCalibration  # the fit inside CalibratedClassifierCV

    scores, positive = scores_and_truth(0)
    a, b = fit_sigmoid(scores, positive)
    expected = _SigmoidCalibration().fit(scores.double().numpy(), positive.numpy().astype(float))
    # scikit-learn's sigmoid is 1 / (1 + exp(a * score + b)).
    assert a == pytest.approx(-expected.a_, rel=1e-3)
    assert b == pytest.approx(-expected.b_, rel=1e-3, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.booleans())
def test_equals_a_general_minimiser(seed: int, scale: float, shift: float, weighted: bool):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(40, generator=draw, dtype=torch.float64)
    positive = torch.rand(40, generator=draw) < torch.sigmoid(2 * x)
    positive[:2] = torch.tensor([True, False])
    weight = (
        torch.rand(40, generator=draw, dtype=torch.float64) + 0.1 if weighted else torch.ones(40).double()
    )
    up, down = float(weight[positive].sum()), float(weight[~positive].sum())
    target = np.where(positive.numpy(), (up + 1) / (up + 2), 1 / (down + 2))

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * x.numpy() + parameters[1]
        return float(weight.numpy() @ (np.logaddexp(0, z) - target * z))

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13})
    a, b = fit_sigmoid(x * scale + shift, positive, weight if weighted else None)
    assert loss(np.array([a * scale, a * shift + b])) <= best.fun * (1 + 1e-8) + 1e-9


def test_separable_scores_give_finite_parameters():
    a, b = fit_sigmoid(torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([False, False, True, True]))
    assert np.isfinite([a, b]).all()
    assert a > 0
    assert b == pytest.approx(0, abs=1e-6)


def test_equal_scores_give_the_smoothed_class_frequency():
    a, b = fit_sigmoid(torch.zeros(10), torch.arange(10) < 3)
    expected = (3 * 4 / 5 + 7 / 9) / 10
    assert 1 / (1 + np.exp(-b)) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(a)


def test_integer_weights_equal_repeated_samples():
    scores, positive = scores_and_truth(1, 60)
    weight = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(0))
    weighted = fit_sigmoid(scores, positive, weight)
    repeated = fit_sigmoid(scores.repeat_interleave(weight), positive.repeat_interleave(weight))
    assert weighted == pytest.approx(repeated, rel=1e-6)


def test_invalid_arguments_raise_user_errors():
    scores, positive = scores_and_truth(2, 8)
    with pytest.raises(UserError, match="positive"):
        fit_sigmoid(scores, positive[:5])
    with pytest.raises(UserError, match="both positives and negatives"):
        fit_sigmoid(scores, torch.ones(8, dtype=torch.bool))
    with pytest.raises(UserError, match="scores"):
        fit_sigmoid(scores.log() - scores.log(), positive)
    with pytest.raises(UserError, match="weight"):
        fit_sigmoid(scores, positive, -torch.ones(8))
    with pytest.raises(UserError, match="weight"):
        fit_sigmoid(scores, positive, torch.ones(3))

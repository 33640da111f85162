from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.svm import LinearSVC
from torch import Tensor

from sppnet.errors import UserError
from sppnet.learn import LinearModel, SvmOptions, fit_linear_svm, one_versus_rest

LossName = Literal["squared_hinge", "hinge"]
LOSSES: tuple[LossName, LossName] = ("squared_hinge", "hinge")


def problem(count: int, columns: int, classes: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Create features distributed like pooled activations, and targets with some zeros."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, columns, generator=draw) ** 2
    truth = torch.randn(columns, classes, generator=draw) / columns**0.5
    scores = (rows - rows.mean(0)) @ truth
    scores = scores / scores.std(0) + noise * torch.randn(count, classes, generator=draw)
    targets = torch.where(scores > 0.5, 1, -1)
    targets[torch.rand(count, classes, generator=draw) < 0.1] = 0
    return rows, targets


def objective(rows: Tensor, targets: Tensor, model: LinearModel, options: SvmOptions) -> NDArray[np.float64]:
    """Compute the objective of liblinear with plain loops."""
    x, weight, bias = rows.double().numpy(), model.weight.double().numpy(), model.bias.double().numpy()
    values: list[float] = []
    for k in range(len(weight)):
        value = 0.5 * float(weight[k] @ weight[k])
        if options.bias_feature:
            value += 0.5 * float(bias[k] / options.bias_feature) ** 2
        for i in range(len(x)):
            sign = int(targets[i, k])
            if sign:
                loss = max(0.0, 1 - sign * (float(x[i] @ weight[k]) + float(bias[k])))
                cost = options.C * (options.positive_weight if sign > 0 else 1.0)
                value += cost * (loss**2 if options.loss == "squared_hinge" else loss)
        values.append(value)
    return np.array(values)


def liblinear(rows: Tensor, targets: Tensor, options: SvmOptions) -> LinearModel:
    """Fit the converged SVM of scikit-learn for each class."""
    weights: list[Tensor] = []
    biases: list[float] = []
    for k in range(targets.shape[1]):
        used = targets[:, k] != 0
        svc = LinearSVC(
            C=options.C,
            loss=options.loss,
            dual=options.loss == "hinge",
            tol=1e-8,
            max_iter=100_000,
            fit_intercept=options.bias_feature > 0,
            intercept_scaling=options.bias_feature or 1.0,
            class_weight={1: options.positive_weight},
            random_state=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            svc.fit(rows[used].double().numpy(), targets[used, k].numpy())
        weights.append(torch.from_numpy(svc.coef_[0]))
        biases.append(float(np.ravel(svc.intercept_)[0]))
    return LinearModel(torch.stack(weights), torch.tensor(biases, dtype=torch.float64))


def assert_close_models(model: LinearModel, expected: LinearModel, tolerance: float = 1e-3):
    one = torch.cat([model.weight, model.bias[:, None]], 1).double()
    two = torch.cat([expected.weight, expected.bias[:, None]], 1).double()
    error = (one - two).norm(dim=1) / two.norm(dim=1)
    assert error.max() < tolerance, error


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("count", "columns", "C", "bias_feature", "positive_weight"),
    [
        (400, 30, 1.0, 1.0, 1.0),  # more samples than columns
        (400, 30, 1e-3, 10.0, 2.0),  # options of the SPP_net release
        (400, 30, 30.0, 0.0, 1.0),  # no bias
        (60, 200, 1.0, 1.0, 2.0),  # more columns than samples: separable
        (60, 200, 1e-3, 10.0, 1.0),
        (60, 200, 100.0, 1.0, 1.0),  # nearly a hard margin
        (260, 200, 50.0, 1.0, 1.0),  # nearly a hard margin, more samples than columns
    ],
)
def test_equals_liblinear(
    loss: LossName, count: int, columns: int, C: float, bias_feature: float, positive_weight: float
):
    rows, targets = problem(count, columns, 3, 0.1)
    options = SvmOptions(C, loss, bias_feature, positive_weight)
    model = fit_linear_svm(rows, targets, options)
    expected = liblinear(rows, targets, options)
    assert model.weight.dtype == torch.float32
    assert_close_models(model, expected)
    ratio = objective(rows, targets, model, options) / objective(rows, targets, expected, options)
    assert np.all(ratio < 1.001), ratio


@pytest.mark.parametrize("loss", LOSSES)
def test_equals_liblinear_with_thousands_of_active_samples(loss: LossName):
    rows, targets = problem(6000, 12, 3, 2.0)
    options = SvmOptions(0.05, loss)
    assert_close_models(fit_linear_svm(rows, targets, options), liblinear(rows, targets, options))


@pytest.mark.parametrize("loss", LOSSES)
def test_joint_fit_equals_separate_fits(loss: LossName, monkeypatch: pytest.MonkeyPatch):
    rows, targets = problem(150, 40, 5, 0.3)
    options = SvmOptions(loss=loss, tolerance=1e-5)
    joint = fit_linear_svm(rows, targets, options)
    separate = [fit_linear_svm(rows, targets[:, k : k + 1], options) for k in range(5)]
    assert_close_models(
        joint,
        LinearModel(torch.cat([m.weight for m in separate]), torch.cat([m.bias for m in separate])),
        1e-4,
    )
    monkeypatch.setattr("sppnet.learn.svm._PAIRS", 300)  # two classes per group
    assert_close_models(fit_linear_svm(rows, targets, options), joint, 1e-4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("count", "columns"), [(300, 20), (40, 100)])
def test_start_does_not_change_the_result(loss: LossName, count: int, columns: int):
    rows, targets = problem(count, columns, 3, 0.5)
    options = SvmOptions(loss=loss, tolerance=1e-5)
    cold = fit_linear_svm(rows, targets, options)
    draw = torch.Generator().manual_seed(1)
    random = LinearModel(torch.randn(3, columns, generator=draw), torch.randn(3, generator=draw))
    nearby = fit_linear_svm(rows[: count // 2], targets[: count // 2], options)
    for start in (cold, nearby, random):
        assert_close_models(fit_linear_svm(rows, targets, options, start), cold, 1e-4)
    # From the optimum, one step suffices.
    if loss == "squared_hinge":
        again = SvmOptions(loss=loss, tolerance=1e-3, max_iterations=2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit_linear_svm(rows, targets, again, cold)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_squared_hinge_satisfies_the_optimality_condition(data: st.DataObject):
    """Check that the gradient, w - 2 C sum_i cost_i m_i y_i x_i, vanishes, for degenerate problems too."""
    count, columns, classes = (data.draw(st.integers(1, n)) for n in (12, 6, 3))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    rows = torch.randint(-2, 3, (count, columns), generator=draw).double()  # has duplicates and zeros
    targets = torch.randint(-1, 2, (count, classes), generator=draw)  # a class may lack a sign or all samples
    C = data.draw(st.sampled_from([1e-4, 0.1, 1.0, 1e3]))
    bias_feature = data.draw(st.sampled_from([0.0, 1.0, 10.0]))
    weight_up = data.draw(st.sampled_from([1.0, 2.0]))
    model = fit_linear_svm(rows, targets, SvmOptions(C, "squared_hinge", bias_feature, weight_up, 1e-7))
    for k in range(classes):
        gradient = model.weight[k].clone()
        bias = 0.0
        for i in range(count):
            sign = int(targets[i, k])
            slack = max(0.0, 1 - sign * float(rows[i] @ model.weight[k] + model.bias[k]))
            force = 2 * C * (weight_up if sign > 0 else 1.0) * slack * sign
            gradient -= force * rows[i]
            bias += force
        size = float(model.weight[k].norm())
        assert gradient.norm() <= 1e-5 * max(size, 1e-9) + 1e-9 * C
        # The bias is bias_feature times its weight, whose gradient vanishes too.
        assert float(model.bias[k]) == pytest.approx(bias_feature**2 * bias, rel=1e-5, abs=1e-6 * (1 + size))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 14), st.integers(1, 6), st.sampled_from([1e-3, 0.1, 1.0, 100.0]))
def test_no_neighbour_has_a_lower_hinge_objective(seed: int, count: int, columns: int, C: float):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(-2, 3, (count, columns), generator=draw).double()
    targets = torch.randint(-1, 2, (count, 2), generator=draw)
    options = SvmOptions(C, "hinge", tolerance=1e-6)
    model = fit_linear_svm(rows, targets, options)
    best = objective(rows, targets, model, options)
    for size in (1e-3, 0.03, 1.0):
        step = torch.randn(2, columns + 1, generator=draw, dtype=torch.float64) * size
        moved = LinearModel(model.weight + step[:, :-1], model.bias + step[:, -1])
        assert np.all(objective(rows, targets, moved, options) >= best * (1 - 1e-5) - 1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_points_have_the_closed_form_solution(loss: LossName):
    """Points at +2 and -2, no bias, high cost: the hard margin gives w = 1/2."""
    model = fit_linear_svm(
        torch.tensor([[2.0], [-2.0]]), torch.tensor([[1], [-1]]), SvmOptions(1e4, loss, bias_feature=0.0)
    )
    assert model.weight.item() == pytest.approx(0.5, rel=1e-4)
    assert model.bias.item() == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("count", "columns"), [(200, 10), (20, 60)])
def test_repeated_samples_equal_twice_the_cost(loss: LossName, count: int, columns: int):
    rows, targets = problem(count, columns, 2, 0.5)
    twice = fit_linear_svm(rows.repeat(2, 1), targets.repeat(2, 1), SvmOptions(0.5, loss))
    assert_close_models(twice, fit_linear_svm(rows, targets, SvmOptions(1.0, loss)), 1e-3)


def test_features_of_other_dtypes():
    rows, targets = problem(100, 8, 2, 0.3)
    exact = fit_linear_svm(rows.double(), targets)
    assert exact.weight.dtype == torch.float64
    assert_close_models(fit_linear_svm(rows.double().T.contiguous().T, targets), exact)
    half = fit_linear_svm(rows.bfloat16(), targets.to(torch.int8))
    assert half.weight.dtype == torch.float32
    assert_close_models(half, fit_linear_svm(rows.bfloat16().float(), targets.float()), 1e-6)


def test_arguments_are_not_modified():
    rows, targets = problem(60, 90, 2, 0.3)
    copies = rows.clone(), targets.clone()
    start = LinearModel(torch.ones(2, 90), torch.ones(2))
    fit_linear_svm(rows, targets, SvmOptions(loss="hinge"), start)
    assert torch.equal(rows, copies[0])
    assert torch.equal(targets, copies[1])
    assert torch.equal(start.weight, torch.ones(2, 90))


def test_separates_gaussian_classes():
    draw = torch.Generator().manual_seed(3)
    centres = torch.rand(5, 300, generator=draw)
    labels = torch.arange(5).repeat(30)
    rows = centres[labels] + 0.3 * torch.randn(150, 300, generator=draw)
    model = fit_linear_svm(rows[:100], one_versus_rest(labels[:100], 5))
    assert (model.scores(rows[100:]).argmax(1) == labels[100:]).float().mean() > 0.95


def test_warns_when_the_iterations_run_out():
    rows, targets = problem(300, 20, 3, 0.5)
    with pytest.warns(RuntimeWarning, match="3 of 3 SVMs did not converge .* within 1 iterations"):
        fit_linear_svm(rows, targets, SvmOptions(C=100.0, max_iterations=1))


def test_invalid_arguments_raise_user_errors():
    rows, targets = problem(10, 4, 2, 0.5)
    with pytest.raises(UserError, match="rows"):
        fit_linear_svm(rows[0], targets)
    with pytest.raises(UserError, match="rows"):
        fit_linear_svm(rows[:0], targets[:0])
    with pytest.raises(UserError, match="floating"):
        fit_linear_svm(rows.int(), targets)
    with pytest.raises(UserError, match=r"targets.*\[10, K\].*\[9, 2\]"):
        fit_linear_svm(rows, targets[:9])
    with pytest.raises(UserError, match=r"-1, 0 and 1.*got 2"):
        fit_linear_svm(rows, targets * 2)
    with pytest.raises(UserError, match=r"start.*\[2, 4\].*\[2, 3\]"):
        fit_linear_svm(rows, targets, None, LinearModel(torch.zeros(2, 3), torch.zeros(2)))
    rows[7, 2] = float("nan")
    with pytest.raises(UserError, match=r"rows\[7\]"):
        fit_linear_svm(rows, targets)


def test_overflow_of_inner_products_raises_a_user_error():
    rows = torch.full((3, 2), 1e38)
    rows[:, 1] = -1e38
    with pytest.raises(UserError, match="overflow"):
        fit_linear_svm(rows, torch.tensor([[1], [-1], [1]]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("C", 0.0),
        ("C", float("inf")),
        ("positive_weight", -1.0),
        ("tolerance", 0.0),
        ("bias_feature", -1.0),
        ("bias_feature", float("nan")),
        ("loss", "logistic"),
        ("max_iterations", 0),
    ],
)
def test_options_out_of_range_raise_user_errors(name: str, value: object):
    with pytest.raises(UserError, match=rf"SvmOptions\.{name}"):
        SvmOptions(**{name: value})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("count", "columns"), [(3000, 20), (60, 200)])
def test_gpu_equals_cpu(loss: LossName, count: int, columns: int):
    rows, targets = problem(count, columns, 3, 0.8)
    gpu = fit_linear_svm(rows.cuda(), targets.cuda(), SvmOptions(loss=loss))
    assert gpu.weight.is_cuda
    cpu = fit_linear_svm(rows, targets, SvmOptions(loss=loss))
    assert_close_models(LinearModel(gpu.weight.cpu(), gpu.bias.cpu()), cpu)

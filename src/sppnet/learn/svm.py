"""L2-regularised linear support vector machines for dense features, one per class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.learn._newton import Batch, Loss, Solution, line_search, minimise
from sppnet.learn._spaces import GramSpace, RowSpace, Space
from sppnet.learn.linear import LinearModel, check_rows
from sppnet.ops.linear import suits

_PAIRS = 2**24  # pairs of sample and class that are solved at once; bounds the memory
_GRAM_ROWS = 12_000  # maximum number of samples whose inner products are stored: 576 MB
_SQUARED_HINGE = Loss(2.0, float("inf"), direct=500)
_ROUGH = 1e-3  # tolerance from which float32 inner products suffice for the hinge
_STAGES = 40  # maximum stages of the method of multipliers, for the hinge


@dataclass(frozen=True)
class SvmOptions:
    """Options of `fit_linear_svm`.

    The objective of each class, over the samples that it uses, is that of liblinear::

        |w|^2 / 2 + bias^2 / (2 * bias_feature^2) + C * sum_i cost_i * loss(sign_i * score_i)

    Attributes:
        C: weight of the losses.
        loss: ``"squared_hinge"`` for ``max(0, 1 - x)^2`` or ``"hinge"`` for ``max(0, 1 - x)``.
        bias_feature: value of the constant feature whose weight, regularised like the others, gives the
            bias. It is ``intercept_scaling`` in scikit-learn and 10 in the SPP_net release, spp_train.m.
            0 fits no bias.
        positive_weight: ``cost_i`` of positive samples; that of negative samples is 1. The SPP_net release
            uses 2.
        tolerance: bound of the relative error of the weights and, for the hinge, of the objective.
        max_iterations: maximum number of Newton steps; for the hinge, per stage.

    Raises:
        UserError: a value is out of range.

    Examples:
        >>> SvmOptions(C=1e-3, loss="hinge", bias_feature=10.0, positive_weight=2.0).tolerance
        0.0001
    """

    C: float = 1.0
    loss: Literal["squared_hinge", "hinge"] = "squared_hinge"
    bias_feature: float = 1.0
    positive_weight: float = 1.0
    tolerance: float = 1e-4
    max_iterations: int = 100

    def __post_init__(self) -> None:
        for name in ("C", "positive_weight", "tolerance"):
            value: float = getattr(self, name)
            if not 0 < value < float("inf"):
                raise UserError(f"SvmOptions.{name}", "a finite number above 0", value)
        if not 0 <= self.bias_feature < float("inf"):
            raise UserError("SvmOptions.bias_feature", "a finite number of at least 0", self.bias_feature)
        if self.loss not in ("squared_hinge", "hinge"):
            raise UserError("SvmOptions.loss", "'squared_hinge' or 'hinge'", repr(self.loss))
        if self.max_iterations < 1:
            raise UserError("SvmOptions.max_iterations", "at least 1", self.max_iterations)


def fit_linear_svm(
    rows: Tensor, targets: Tensor, options: SvmOptions | None = None, start: LinearModel | None = None
) -> LinearModel:
    """Fit one linear SVM per class, all classes at once.

    The squared hinge gives the weights of scikit-learn's ``LinearSVC(dual=False)``, the hinge those of a
    converged ``LinearSVC(dual=True, loss="hinge")``. The paper trains one SVM per category (He et al.
    2015, section 4.1); the SPP_net release, spp_train.m, uses the hinge with C = 1e-3, a bias feature of
    10 and a positive weight of 2.

    Args:
        rows: features ``[N, D]`` on CPU or GPU, any floating dtype; float32 and float64 are not copied.
        targets: ``[N, K]`` on the same device: +1, -1, or 0 for samples that a class does not use.
        options: the objective; ``SvmOptions()`` by default.
        start: initial weights, such as those of a fit with fewer samples. They shorten the fit and do not
            change its result.

    Returns:
        A model with weight ``[K, D]`` and bias ``[K]`` on the device of the features, in their dtype or,
        if that is narrower, in float32.

    Raises:
        UserError: shapes differ, a target is not -1, 0 or 1, or a feature is not finite.

    Examples:
        >>> import torch
        >>> features, targets = torch.tensor([[2.0], [-2.0]]), torch.tensor([[1], [-1]])
        >>> model = fit_linear_svm(features, targets, SvmOptions(C=1e4, bias_feature=0.0))
        >>> round(model.weight.item(), 3)
        0.5
    """
    options = options or SvmOptions()
    rows = check_rows(rows)
    _check_targets(rows, targets)
    if start is not None and start.weight.shape != (targets.shape[1], rows.shape[1]):
        expected = f"weights {[targets.shape[1], rows.shape[1]]}"
        raise UserError("start", expected, f"weights {list(start.weight.shape)}")
    space = _space(rows, targets.shape[1], options)
    pieces: list[Tensor] = []
    unconverged = 0
    for group in torch.arange(targets.shape[1], device=rows.device).split(max(1, _PAIRS // len(rows))):
        batch = _begin(space, rows, targets[:, group].T, options)
        if start is not None:
            initial = LinearModel(start.weight[group], start.bias[group])
            batch = _warm_start(space, rows, batch, options, initial)
        solution = (_squared_hinge if options.loss == "squared_hinge" else _hinge)(space, batch, options)
        unconverged += int((~solution.converged).sum())
        vectors = solution.vectors.to(rows.dtype)
        pieces.append(_row_space(rows, options).adjoint(vectors) if isinstance(space, GramSpace) else vectors)
    if unconverged:
        warnings.warn(
            f"{unconverged} of {targets.shape[1]} SVMs did not converge to the tolerance of "
            f"{options.tolerance:g} within {options.max_iterations} iterations",
            RuntimeWarning,
            stacklevel=2,
        )
    weights = torch.cat(pieces)
    return LinearModel(weights[:, :-1].contiguous(), weights[:, -1] * options.bias_feature)


def _check_targets(rows: Tensor, targets: Tensor) -> None:
    if targets.ndim != 2 or targets.shape[0] != len(rows) or not targets.shape[1]:
        expected = f"a matrix [{len(rows)}, K], one row per sample"
        raise UserError("targets", expected, f"shape {list(targets.shape)}")
    if targets.device != rows.device:
        raise UserError("targets", f"a tensor on the device of the features, {rows.device}", targets.device)
    invalid = (targets != 0) & (targets != 1) & (targets != -1)
    if bool(invalid.any()):
        raise UserError("targets", "only -1, 0 and 1", targets[invalid][0].item())


def _row_space(rows: Tensor, options: SvmOptions) -> RowSpace:
    return RowSpace(rows, options.bias_feature, rows.dtype)


def _space(rows: Tensor, classes: int, options: SvmOptions) -> Space:
    """Choose the unknowns with which the problem is the cheapest to solve."""
    # With the fast products, all passes over the features take less time than their inner products.
    fast = options.loss == "squared_hinge" and suits(rows, classes)
    if fast or len(rows) > min(rows.shape[1], _GRAM_ROWS):
        return _row_space(rows, options)
    if options.loss == "squared_hinge":
        return GramSpace.of(rows, options.bias_feature, rows.dtype)
    # With fewer samples than columns, the hinge solution is close to a hard margin, which float32 cannot
    # resolve. The inner products take about ten times as long as the rest of the fit; in float32 they are
    # precise enough for a rough tolerance.
    products = rows.dtype if options.tolerance >= _ROUGH else torch.float64
    return GramSpace.of(rows, options.bias_feature, torch.float64, products)


def _begin(space: Space, rows: Tensor, targets: Tensor, options: SvmOptions) -> Batch:
    """Create the batch of ``targets [K, N]`` with weights of zero."""
    vectors = space.zeros(len(targets))
    signs = targets.to(vectors.dtype)
    cost = torch.where(signs > 0, options.positive_weight, (signs < 0).to(vectors.dtype)) * options.C
    return Batch(signs, cost, vectors, torch.zeros_like(signs), torch.zeros_like(signs))


def _warm_start(space: Space, rows: Tensor, batch: Batch, options: SvmOptions, start: LinearModel) -> Batch:
    """Move the batch to the weights of ``start``.

    In a `GramSpace` the coefficients of the samples cannot express arbitrary weights. There the dual
    variables of the squared hinge at these weights are used, scaled to minimise the objective.
    """
    bias = start.bias / options.bias_feature if options.bias_feature else torch.zeros_like(start.bias)
    vectors = torch.cat([start.weight, bias[:, None]], 1).to(rows)
    scores = _row_space(rows, options).scores(vectors).to(batch.scores.dtype)
    if isinstance(space, RowSpace):
        return batch.moved(vectors, scores)
    dual = batch.dual(_SQUARED_HINGE, 1 - batch.signs * scores)
    step = dual * batch.cost * batch.signs
    change = space.scores(step)
    length = line_search(space, batch, _SQUARED_HINGE, step, change)[:, None]
    return batch.moved(length * step, length * change)


def _squared_hinge(space: Space, batch: Batch, options: SvmOptions) -> Solution:
    return minimise(space, batch, _SQUARED_HINGE, options.tolerance, options.max_iterations)


def _hinge(space: Space, batch: Batch, options: SvmOptions) -> Solution:
    """Minimise the hinge by the method of multipliers.

    Each stage minimises the smoothed hinge, centred on the dual variables of the previous stage. A class
    has converged when the duality gap proves the tolerance, or when a stage of the final width changes
    its weights by less than the tolerance and the gap relative to the objective is below it too. If a gap
    does not close, the arithmetic changes to float64, and in float64 the smoothing width decreases.
    """
    vectors = torch.empty_like(batch.vectors)
    converged = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    numbers = torch.arange(len(vectors), device=vectors.device)
    last = torch.full_like(batch.scores[:, 0], torch.inf)
    # Steps stay well conditioned and stages converge fast when the curvature, cost / width, is a few
    # hundred times the inverse of the squared norm of the samples.
    narrowest = max(0.001, 0.005 * options.C * space.mean_square())
    width, tolerance = max(1.0, narrowest), 0.1
    for _ in range(_STAGES):
        loss = Loss(1 / width, 1.0, direct=2500)
        solution = minimise(space, batch, loss, tolerance, options.max_iterations)
        step = solution.vectors - batch.vectors
        batch = batch.moved(solution.vectors, space.scores(solution.vectors))
        dual = batch.dual(loss, batch.slack())
        norm = space.dot(batch.vectors, batch.vectors)
        value, gap = _hinge_gap(space, batch, dual)
        final = width <= narrowest and tolerance <= options.tolerance
        stationary = (space.dot(step, step) <= options.tolerance**2 * norm) & final
        done = (gap <= options.tolerance**2 * norm / 2) | (stationary & (gap <= options.tolerance * value))
        vectors[numbers], converged[numbers] = batch.vectors.to(vectors.dtype), done
        stuck = bool(((stationary | (gap > last / 2)) & ~done).any()) and final
        numbers, batch, last = numbers[~done], replace(batch, centre=dual).pick(~done), gap[~done]
        if not len(numbers):
            break
        if stuck and isinstance(space, RowSpace) and space.dtype != torch.float64:
            space, batch, last = replace(space, dtype=torch.float64), batch.double(), last.double()
        elif stuck:
            narrowest /= 4
        width, tolerance = max(width / 10, narrowest), max(tolerance / 10, options.tolerance / 1000)
    return Solution(vectors, converged)


def _hinge_gap(space: Space, batch: Batch, dual: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the objective with the hinge and the duality gap for ``dual [K, N]``, ``[K]`` each."""
    slack = batch.slack()
    loss = slack.clamp(min=0)
    residual = batch.vectors - space.adjoint(dual * batch.cost * batch.signs)
    value = space.dot(batch.vectors, batch.vectors) / 2 + (batch.cost * loss).sum(1)
    return value, space.dot(residual, residual) / 2 + (batch.cost * (loss - dual * slack)).sum(1)

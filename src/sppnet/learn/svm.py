"""L2-regularised linear support vector machines, one-versus-rest, for dense rows."""

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

_PAIRS = 2**24  # pairs of row and class that are solved together; bounds the memory
_GRAM_ROWS = 12_000  # rows up to which their inner products are kept: 576 MB
_SQUARED_HINGE = Loss(2.0, float("inf"), direct=500)
_ROUGH = 1e-3  # the tolerance from which float32 products will do for the hinge
_STAGES = 40  # of the method of multipliers, for the hinge


@dataclass(frozen=True)
class SvmOptions:
    """What a linear SVM minimises, and how well.

    The objective of each class, over the rows that it uses, is liblinear's::

        |w|^2 / 2 + bias^2 / (2 * bias_feature^2) + C * sum_i cost_i * loss(sign_i * score_i)

    Attributes:
        C: the cost of a unit of loss.
        loss: ``"squared_hinge"``: ``max(0, 1 - x)^2``; ``"hinge"``: ``max(0, 1 - x)``.
        bias_feature: the constant feature whose weight, regularised with the others, gives the bias;
            scikit-learn's ``intercept_scaling``. The paper's release has 10; 0 fits no bias.
        positive_weight: ``cost_i`` of positive rows; that of negative ones is 1. The release has 2.
        tolerance: a bound of the error of the weights relative to their norm, and for the hinge of that
            of the objective.
        max_iterations: Newton steps, for the hinge in each of its stages.

    Raises:
        UserError: a value outside its range.
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
    """Fit one linear SVM a class, all classes at once.

    The squared hinge gives the weights of scikit-learn's ``LinearSVC(dual=False)``, the hinge those of
    ``LinearSVC(dual=True, loss="hinge")``, converged (paper section 3.4: one SVM a class; the release
    uses the hinge with C = 1e-3, a bias feature of 10 and a positive weight of 2).

    Args:
        rows: ``[N, D]`` features, CPU or GPU, any floating dtype; float32 and float64 are not copied.
        targets: ``[N, K]`` on the same device: +1, -1, or 0 where a class does not use the row.
        options: the objective; ``SvmOptions()`` by default.
        start: weights to start from, such as those fitted before rows were added; the result is the
            same, sooner.

    Returns:
        weight ``[K, D]`` and bias ``[K]`` in the rows' dtype (float32 for narrower ones) and device.

    Raises:
        UserError: shapes that do not fit, a target other than -1, 0 and 1, a row that is not finite.
    """
    options = options or SvmOptions()
    rows = check_rows(rows)
    _check_targets(rows, targets)
    if start is not None and start.weight.shape != (targets.shape[1], rows.shape[1]):
        wanted = f"weights {[targets.shape[1], rows.shape[1]]}"
        raise UserError("start", wanted, f"weights {list(start.weight.shape)}")
    space = _space(rows, targets.shape[1], options)
    pieces: list[Tensor] = []
    late = 0
    for group in torch.arange(targets.shape[1], device=rows.device).split(max(1, _PAIRS // len(rows))):
        batch = _begin(space, rows, targets[:, group].T, options)
        if start is not None:
            chosen = LinearModel(start.weight[group], start.bias[group])
            batch = _warm(space, rows, batch, options, chosen)
        solution = (_squared_hinge if options.loss == "squared_hinge" else _hinge)(space, batch, options)
        late += int((~solution.converged).sum())
        vectors = solution.vectors.to(rows.dtype)
        pieces.append(_row_space(rows, options).adjoint(vectors) if isinstance(space, GramSpace) else vectors)
    if late:
        warnings.warn(
            f"{late} of {targets.shape[1]} SVMs stopped after {options.max_iterations} iterations, short of "
            f"the tolerance of {options.tolerance:g}",
            RuntimeWarning,
            stacklevel=2,
        )
    weights = torch.cat(pieces)
    return LinearModel(weights[:, :-1].contiguous(), weights[:, -1] * options.bias_feature)


def _check_targets(rows: Tensor, targets: Tensor) -> None:
    if targets.ndim != 2 or targets.shape[0] != len(rows) or not targets.shape[1]:
        wanted = f"a matrix [{len(rows)}, K], one line a row"
        raise UserError("targets", wanted, f"shape {list(targets.shape)}")
    if targets.device != rows.device:
        raise UserError("targets", f"the rows' device {rows.device}", targets.device)
    wrong = (targets != 0) & (targets != 1) & (targets != -1)
    if bool(wrong.any()):
        raise UserError("targets", "only -1, 0 and 1", targets[wrong][0].item())


def _row_space(rows: Tensor, options: SvmOptions) -> RowSpace:
    return RowSpace(rows, options.bias_feature, rows.dtype)


def _space(rows: Tensor, classes: int, options: SvmOptions) -> Space:
    """Where the problem is the cheapest to solve."""
    # With fast products, all passes over the rows together take less than their inner products.
    fast = options.loss == "squared_hinge" and suits(rows, classes)
    if fast or len(rows) > min(rows.shape[1], _GRAM_ROWS):
        return _row_space(rows, options)
    if options.loss == "squared_hinge":
        return GramSpace.of(rows, options.bias_feature, rows.dtype)
    # With fewer rows than columns the hinge nearly makes a hard margin, beyond float32's arithmetic; but its
    # products, an order of magnitude more work than all that follows, bear a rough solution.
    products = rows.dtype if options.tolerance >= _ROUGH else torch.float64
    return GramSpace.of(rows, options.bias_feature, torch.float64, products)


def _begin(space: Space, rows: Tensor, targets: Tensor, options: SvmOptions) -> Batch:
    """The classes of ``targets [K, N]`` at weights of zero."""
    vectors = space.zeros(len(targets))
    signs = targets.to(vectors.dtype)
    cost = torch.where(signs > 0, options.positive_weight, (signs < 0).to(vectors.dtype)) * options.C
    return Batch(signs, cost, vectors, torch.zeros_like(signs), torch.zeros_like(signs))


def _warm(space: Space, rows: Tensor, batch: Batch, options: SvmOptions, start: LinearModel) -> Batch:
    """The same classes at the weights of ``start``.

    Coefficients of rows cannot express weights made elsewhere. There the pull of the squared hinge at
    those weights is taken, at the length that suits the objective best.
    """
    bias = start.bias / options.bias_feature if options.bias_feature else torch.zeros_like(start.bias)
    vectors = torch.cat([start.weight, bias[:, None]], 1).to(rows)
    scores = _row_space(rows, options).scores(vectors).to(batch.scores.dtype)
    if isinstance(space, RowSpace):
        return batch.moved(vectors, scores)
    pull = batch.pull(_SQUARED_HINGE, 1 - batch.signs * scores)
    step = pull * batch.cost * batch.signs
    change = space.scores(step)
    length = line_search(space, batch, _SQUARED_HINGE, step, change)[:, None]
    return batch.moved(length * step, length * change)


def _squared_hinge(space: Space, batch: Batch, options: SvmOptions) -> Solution:
    return minimise(space, batch, _SQUARED_HINGE, options.tolerance, options.max_iterations)


def _hinge(space: Space, batch: Batch, options: SvmOptions) -> Solution:
    """The hinge by the method of multipliers: each stage minimises it rounded, around the last pulls.

    A class is finished when the duality gap proves the tolerance, or when a stage of the final width
    moves its weights by less than that and the gap is as small beside the objective. A gap that does not
    close calls for float64, and there for a narrower rounding.
    """
    vectors = torch.empty_like(batch.vectors)
    converged = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    numbers = torch.arange(len(vectors), device=vectors.device)
    last = torch.full_like(batch.scores[:, 0], torch.inf)
    # Neither the conditioning of the steps nor the convergence of the stages suffers when the curvature,
    # cost / width, is some hundred times one over the rows' squared norm.
    narrowest = max(0.001, 0.005 * options.C * space.mean_square())
    width, loose = max(1.0, narrowest), 0.1
    for _ in range(_STAGES):
        loss = Loss(1 / width, 1.0, direct=2500)
        solution = minimise(space, batch, loss, loose, options.max_iterations)
        step = solution.vectors - batch.vectors
        batch = batch.moved(solution.vectors, space.scores(solution.vectors))
        pull = batch.pull(loss, batch.shortfall())
        norm = space.dot(batch.vectors, batch.vectors)
        value, gap = _hinge_gap(space, batch, pull)
        final = width <= narrowest and loose <= options.tolerance
        resting = (space.dot(step, step) <= options.tolerance**2 * norm) & final
        done = (gap <= options.tolerance**2 * norm / 2) | (resting & (gap <= options.tolerance * value))
        vectors[numbers], converged[numbers] = batch.vectors.to(vectors.dtype), done
        stuck = bool(((resting | (gap > last / 2)) & ~done).any()) and final
        numbers, batch, last = numbers[~done], replace(batch, centre=pull).pick(~done), gap[~done]
        if not len(numbers):
            break
        if stuck and isinstance(space, RowSpace) and space.dtype != torch.float64:
            space, batch, last = replace(space, dtype=torch.float64), batch.double(), last.double()
        elif stuck:
            narrowest /= 4
        width, loose = max(width / 10, narrowest), max(loose / 10, options.tolerance / 1000)
    return Solution(vectors, converged)


def _hinge_gap(space: Space, batch: Batch, pull: Tensor) -> tuple[Tensor, Tensor]:
    """The hinge's objective and its distance from the dual one of ``pull``, ``[K]`` each."""
    short = batch.shortfall()
    loss = short.clamp(min=0)
    residual = batch.vectors - space.adjoint(pull * batch.cost * batch.signs)
    value = space.dot(batch.vectors, batch.vectors) / 2 + (batch.cost * loss).sum(1)
    return value, space.dot(residual, residual) / 2 + (batch.cost * (loss - pull * short)).sum(1)

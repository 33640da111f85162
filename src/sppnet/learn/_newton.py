"""A batched Newton method for L2-regularised large-margin losses, all classes at once.

The loss of sample i in class k is, with the slack ``m = 1 - sign * score``::

    cost * (q * m - (q - centre)^2 / (2 * slope)),   q = clip(centre + slope * m, 0, cap)

``slope = 2, cap = inf, centre = 0`` is the squared hinge. ``slope = 1/h, cap = 1`` is the hinge smoothed
over a width h around its corner. It equals the hinge at the optimum when the centre is the dual variable
q of the optimum: setting the centre to the last q and minimising again is the method of multipliers. In
both cases the second derivative is ``cost * slope`` for the active samples (``0 < q < cap``) and 0 for
the others, so every Newton step is a ridge regression on the active samples. A class with few active
samples is solved exactly by Cholesky factorisation of their inner products. The other classes are solved
by conjugate gradients, in matrix products over all of them. An exact line search follows. Converged
classes are removed from the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from sppnet.learn._spaces import Space

_FORCING = 0.1  # conjugate gradients reduce the residual at least by this
_CG_STEPS = 250
_SEARCH_STEPS = 40
_NEGLIGIBLE = 1e-7  # a predicted relative decrease below this is within float32 rounding


@dataclass(frozen=True)
class Loss:
    """Parameters of the loss in the module docstring.

    Attributes:
        slope: the slope of q as a function of the slack.
        cap: the upper bound of q.
        direct: maximum number of active samples for a solution by Cholesky factorisation instead of
            conjugate gradients. Worse conditioned steps need a higher value.
    """

    slope: float
    cap: float
    direct: int


@dataclass(frozen=True)
class Batch:
    """The state of K classes during the minimisation.

    Attributes:
        signs: ``[K, N]``, the targets.
        cost: ``[K, N]``, the weight of each loss; 0 for samples that the class does not use.
        vectors: ``[K, V]``, the unknowns.
        scores: ``[K, N]``, the decision scores of the samples for these unknowns.
        centre: ``[K, N]``, the centre of each loss.
    """

    signs: Tensor
    cost: Tensor
    vectors: Tensor
    scores: Tensor
    centre: Tensor

    def pick(self, index: Tensor) -> Batch:
        """Select classes by a mask or by indices."""
        return Batch(*(getattr(self, field.name)[index] for field in fields(self)))

    def moved(self, vectors: Tensor, scores: Tensor) -> Batch:
        """Return the batch with new unknowns and their scores."""
        return replace(self, vectors=vectors, scores=scores)

    def double(self) -> Batch:
        """Convert every tensor to float64."""
        return Batch(*(getattr(self, field.name).double() for field in fields(self)))

    def slack(self) -> Tensor:
        """Compute m, ``[K, N]``."""
        return 1 - self.signs * self.scores

    def dual(self, loss: Loss, slack: Tensor) -> Tensor:
        """Compute q, ``[K, N]``: the derivative of the loss by ``slack``, without the cost."""
        return (self.centre + slack * loss.slope).clamp_(0, loss.cap)

    def value(self, loss: Loss, slack: Tensor, dual: Tensor) -> Tensor:
        """Sum the losses of each class, ``[K]``."""
        return (self.cost * (dual * slack - (dual - self.centre).square() / (2 * loss.slope))).sum(1)


@dataclass(frozen=True)
class Solution:
    """The result of `minimise`.

    Attributes:
        vectors: ``[K, V]``, the unknowns.
        converged: bool ``[K]``; False for classes that reached the maximum number of iterations.
    """

    vectors: Tensor
    converged: Tensor


def minimise(space: Space, batch: Batch, loss: Loss, tolerance: float, max_iterations: int) -> Solution:
    """Minimise ``|w|^2 / 2 + sum of losses`` for every class, starting from ``batch.vectors``.

    The objective is strongly convex with modulus 1, so the distance to the optimum is at most the norm
    of the gradient. A class has converged when ``|gradient| <= tolerance * |w|``, which bounds the
    relative error of its weights by ``tolerance``, or when the remaining decrease is below the precision
    of float32.

    Args:
        space: the products of the problem.
        batch: the classes and their starting point.
        loss: the loss.
        tolerance: maximum norm of the gradient relative to the norm of the weights.
        max_iterations: maximum number of Newton steps.

    Returns:
        The unknowns of every class and whether it converged.
    """
    vectors = torch.empty_like(batch.vectors)
    converged = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    numbers = torch.arange(len(vectors), device=vectors.device)
    first = last = torch.full_like(batch.scores[:, 0], torch.inf)
    stalled = torch.zeros_like(converged)
    for _ in range(max_iterations):
        slack = batch.slack()
        dual = batch.dual(loss, slack)
        gradient = batch.vectors - space.adjoint(dual * batch.cost * batch.signs)
        square, norm = space.dot(gradient, gradient), space.dot(batch.vectors, batch.vectors)
        first = torch.where(torch.isinf(first), square, first)
        done = (square <= tolerance**2 * norm) | (stalled & (square > last / 4))
        vectors[numbers[done]], converged[numbers[done]] = batch.vectors[done], True
        left = ~done
        numbers, batch, slack, dual = numbers[left], batch.pick(left), slack[left], dual[left]
        if not len(numbers):
            break
        first, last = first[left], square[left]
        curvature = ((dual > 0) & (dual < loss.cap)) * batch.cost * loss.slope
        forcing = (last / first).pow(0.25).clamp_(max=_FORCING)
        step = _direction(space, gradient[left], curvature, forcing, loss.direct)
        value = norm[left] / 2 + batch.value(loss, slack, dual)
        stalled = -space.dot(gradient[left], step) <= _NEGLIGIBLE * value
        change = space.scores(step)
        length = line_search(space, batch, loss, step, change)[:, None]
        batch = batch.moved(batch.vectors + length * step, batch.scores + length * change)
    vectors[numbers] = batch.vectors
    return Solution(vectors, converged)


def _direction(space: Space, gradient: Tensor, curvature: Tensor, forcing: Tensor, direct: int) -> Tensor:
    """Compute the Newton step of each class, ``[K, V]``, exactly or to a residual of ``forcing [K]``."""
    step = torch.empty_like(gradient)
    active = curvature > 0
    large = active.sum(1) > direct
    for k in (~large).nonzero()[:, 0].tolist():
        index = active[k].nonzero()[:, 0]
        step[k] = space.newton_step(gradient[k], index, 1 / curvature[k, index])
    if bool(large.any()):
        step[large] = _conjugate_gradients(space, gradient[large], curvature[large], forcing[large])
    return step


def _conjugate_gradients(space: Space, gradient: Tensor, curvature: Tensor, forcing: Tensor) -> Tensor:
    """Solve ``(I + X^T diag(curvature) X) step = -gradient`` for all classes at once, ``[K, V]``."""
    space, used = space.narrow((curvature > 0).any(0), len(curvature))
    curvature = curvature[:, used]
    result = torch.zeros_like(gradient)
    numbers = torch.arange(len(gradient), device=gradient.device)
    step, residual = torch.zeros_like(gradient), -gradient
    search = residual.clone()
    square = space.dot(residual, residual)
    goal = forcing**2 * square
    for _ in range(_CG_STEPS):
        image = search + space.curved(search, curvature)
        length = (square / space.dot(search, image))[:, None]
        step += length * search
        residual -= length * image
        after = space.dot(residual, residual)
        left = after > goal
        result[numbers[~left]] = step[~left]
        search = residual + (after / square)[:, None] * search
        square = after
        if not bool(left.all()):
            numbers, curvature, goal, square = numbers[left], curvature[left], goal[left], square[left]
            step, residual, search = step[left], residual[left], search[left]
            if not len(numbers):
                break
    result[numbers] = step
    return result


def line_search(space: Space, batch: Batch, loss: Loss, step: Tensor, change: Tensor) -> Tensor:
    """Find the step length that minimises the objective along ``step``, by Newton in a bracket.

    Along a line the objective is convex and piecewise quadratic, so Newton's method reaches the exact
    minimum once it is on the piece that contains it.

    Args:
        space: the products of the problem.
        batch: the classes and their current unknowns.
        loss: the loss.
        step: ``[K, V]``, the search directions.
        change: ``[K, N]``, the scores of the samples for ``step``.

    Returns:
        The step lengths ``[K]``.
    """
    linear, quadratic = space.dot(batch.vectors, step), space.dot(step, step)
    signed = batch.signs * change
    start = batch.slack()
    length = torch.ones_like(linear)
    low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
    for _ in range(_SEARCH_STEPS):
        weighted = batch.cost * signed
        dual = batch.dual(loss, start - length[:, None] * signed)
        slope = linear + length * quadratic - (dual * weighted).sum(1)
        active = (dual > 0) & (dual < loss.cap)
        curvature = quadratic + loss.slope * (active * weighted * signed).sum(1)
        low = torch.where(slope < 0, length, low)
        high = torch.where(slope > 0, length, high)
        middle = torch.where(torch.isinf(high), 2 * length, (low + high) / 2)
        update = length - slope / curvature
        update = torch.where((update > low) & (update < high), update, middle)
        update = torch.where(slope == 0, length, update)
        converged = (update - length).abs() <= 1e-4 * length
        length = update
        if bool(converged.all()):
            break
    return length

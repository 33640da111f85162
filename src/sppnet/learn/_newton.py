"""A batched Newton method for L2-regularised large-margin losses, all classes at once.

The loss of a pair of row i and class k is, with the shortfall ``m = 1 - sign * score``::

    cost * (q * m - (q - centre)^2 / (2 * slope)),   q = clip(centre + slope * m, 0, cap)

``slope = 2, cap = inf, centre = 0`` is the squared hinge. ``slope = 1/h, cap = 1`` is the hinge with its
corner rounded over a width h, exact where the centre is the pull q of the optimum: putting the centre
where q ended and minimising again is the method of multipliers. Either way the curvature is
``cost * slope`` on the pairs with ``0 < q < cap`` (the active ones) and nothing elsewhere, so that every
Newton step is a ridge regression on the active rows. Few active rows: solved exactly, class by class, by
Cholesky on their inner products. Many: by conjugate gradients, all such classes in common matrix
products. An exact line search follows; classes that have converged leave the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from sppnet.learn._spaces import Space

_FORCING = 0.1  # conjugate gradients reduce the residual at least by this
_CG_STEPS = 250
_SEARCH_STEPS = 40
_NEGLIGIBLE = 1e-7  # a predicted relative decrease below this is lost in float32


@dataclass(frozen=True)
class Loss:
    """One member of the loss family above.

    Attributes:
        slope: see above.
        cap: see above.
        direct: active rows up to which a class is solved by Cholesky rather than conjugate gradients;
            the more, the worse conditioned its steps are.
    """

    slope: float
    cap: float
    direct: int


@dataclass(frozen=True)
class Batch:
    """K classes in the course of being fitted.

    Attributes:
        signs: ``[K, N]``, the targets.
        cost: ``[K, N]``, what one unit of loss costs; 0 where the class does not use the row.
        vectors: ``[K, V]``, the unknowns.
        scores: ``[K, N]``, the rows' scores by them.
        centre: ``[K, N]``, the loss's centre.
    """

    signs: Tensor
    cost: Tensor
    vectors: Tensor
    scores: Tensor
    centre: Tensor

    def pick(self, index: Tensor) -> Batch:
        """Some of the classes: a mask or numbers."""
        return Batch(*(getattr(self, field.name)[index] for field in fields(self)))

    def moved(self, vectors: Tensor, scores: Tensor) -> Batch:
        """The same classes elsewhere."""
        return replace(self, vectors=vectors, scores=scores)

    def double(self) -> Batch:
        """The same in float64."""
        return Batch(*(getattr(self, field.name).double() for field in fields(self)))

    def shortfall(self) -> Tensor:
        """m, ``[K, N]``."""
        return 1 - self.signs * self.scores

    def pull(self, loss: Loss, short: Tensor) -> Tensor:
        """q, ``[K, N]``: minus the loss's derivative by ``short``, before the cost."""
        return (self.centre + short * loss.slope).clamp_(0, loss.cap)

    def value(self, loss: Loss, short: Tensor, pull: Tensor) -> Tensor:
        """The sum of the losses of each class, ``[K]``."""
        return (self.cost * (pull * short - (pull - self.centre).square() / (2 * loss.slope))).sum(1)


@dataclass(frozen=True)
class Solution:
    """What `minimise` found.

    Attributes:
        vectors: ``[K, V]``.
        converged: bool ``[K]``; False where the iterations ran out.
    """

    vectors: Tensor
    converged: Tensor


def minimise(space: Space, batch: Batch, loss: Loss, tolerance: float, max_iterations: int) -> Solution:
    """Minimise ``|w|^2 / 2 + sum of losses`` for every class, from where ``batch`` stands.

    The objective is strongly convex with modulus 1, so the distance to the optimum is at most the
    gradient's norm: a class has converged when ``|gradient| <= tolerance * |w|``, which bounds the
    relative error of its weights by ``tolerance``; or when float32 can resolve no further progress.
    """
    vectors = torch.empty_like(batch.vectors)
    converged = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    numbers = torch.arange(len(vectors), device=vectors.device)
    first = last = torch.full_like(batch.scores[:, 0], torch.inf)
    stalled = torch.zeros_like(converged)
    for _ in range(max_iterations):
        short = batch.shortfall()
        pull = batch.pull(loss, short)
        gradient = batch.vectors - space.adjoint(pull * batch.cost * batch.signs)
        square, norm = space.dot(gradient, gradient), space.dot(batch.vectors, batch.vectors)
        first = torch.where(torch.isinf(first), square, first)
        done = (square <= tolerance**2 * norm) | (stalled & (square > last / 4))
        vectors[numbers[done]], converged[numbers[done]] = batch.vectors[done], True
        keep = ~done
        numbers, batch, short, pull = numbers[keep], batch.pick(keep), short[keep], pull[keep]
        if not len(numbers):
            break
        first, last = first[keep], square[keep]
        curvature = ((pull > 0) & (pull < loss.cap)) * batch.cost * loss.slope
        forcing = (last / first).pow(0.25).clamp_(max=_FORCING)
        step = _direction(space, gradient[keep], curvature, forcing, loss.direct)
        value = norm[keep] / 2 + batch.value(loss, short, pull)
        stalled = -space.dot(gradient[keep], step) <= _NEGLIGIBLE * value
        change = space.scores(step)
        length = line_search(space, batch, loss, step, change)[:, None]
        batch = batch.moved(batch.vectors + length * step, batch.scores + length * change)
    vectors[numbers] = batch.vectors
    return Solution(vectors, converged)


def _direction(space: Space, gradient: Tensor, curvature: Tensor, forcing: Tensor, direct: int) -> Tensor:
    """The Newton step of each class, ``[K, V]``, exact or to a residual of ``forcing [K]``."""
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
    """Solve ``(I + X^T diag(curvature) X) step = -gradient`` for all classes together, ``[K, V]``."""
    space, kept = space.narrow((curvature > 0).any(0), len(curvature))
    curvature = curvature[:, kept]
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
        going = after > goal
        result[numbers[~going]] = step[~going]
        search = residual + (after / square)[:, None] * search
        square = after
        if not bool(going.all()):
            numbers, curvature, goal, square = numbers[going], curvature[going], goal[going], square[going]
            step, residual, search = step[going], residual[going], search[going]
            if not len(numbers):
                break
    result[numbers] = step
    return result


def line_search(space: Space, batch: Batch, loss: Loss, step: Tensor, change: Tensor) -> Tensor:
    """The length that minimises the objective along ``step``, ``[K]``: Newton in a shrinking bracket.

    Along a line the objective is convex and piecewise quadratic, so Newton ends on the exact minimum as
    soon as it is on the right piece.

    Args:
        space: where ``step`` lives.
        batch: the classes where they stand.
        loss: the loss.
        step: ``[K, V]``.
        change: ``[K, N]``, the rows' scores by ``step``.
    """
    linear, quadratic = space.dot(batch.vectors, step), space.dot(step, step)
    slide = batch.signs * change
    short = batch.shortfall()
    length = torch.ones_like(linear)
    low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
    for _ in range(_SEARCH_STEPS):
        now = short - length[:, None] * slide
        weighted = batch.cost * slide
        pull = batch.pull(loss, now)
        slope = linear + length * quadratic - (pull * weighted).sum(1)
        active = (pull > 0) & (pull < loss.cap)
        curvature = quadratic + loss.slope * (active * weighted * slide).sum(1)
        low = torch.where(slope < 0, length, low)
        high = torch.where(slope > 0, length, high)
        middle = torch.where(torch.isinf(high), 2 * length, (low + high) / 2)
        wish = length - slope / curvature
        wish = torch.where((wish > low) & (wish < high), wish, middle)
        wish = torch.where(slope == 0, length, wish)
        settled = (wish - length).abs() <= 1e-4 * length
        length = wish
        if bool(settled.all()):
            break
    return length

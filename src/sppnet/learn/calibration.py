"""Calibration: map decision scores to probabilities with a sigmoid fitted by maximum likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.errors import UserError

_MAX_STEPS = 100
_MIN_STEP_LENGTH = 1e-10
_GRADIENT_TOLERANCE = 1e-9  # relative to the sum of the weights


def fit_sigmoid(scores: Tensor, positive: Tensor, weight: Tensor | None = None) -> tuple[float, float]:
    """Fit ``sigmoid(a * score + b)``, the probability of the positive class at a decision score.

    This is Platt scaling. The targets are smoothed by one additional sample of each class, so that
    separable scores give finite parameters. The likelihood is maximised by Newton's method with a line
    search.

    Args:
        scores: ``[N]``, finite.
        positive: bool ``[N]``, some True and some False.
        weight: ``[N]``, sample weights of at least 0; ones by default.

    Returns:
        The slope a and the offset b.

    Raises:
        UserError: shapes differ, scores are not finite, or one of the classes has no weight.

    Examples:
        >>> import torch
        >>> a, b = fit_sigmoid(torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([0, 0, 1, 1]).bool())
        >>> a > 0, abs(b) < 1e-6
        (True, True)
    """
    if scores.ndim != 1 or positive.shape != scores.shape:
        raise UserError("positive", f"the shape {list(scores.shape)} of the scores", list(positive.shape))
    if not bool(torch.isfinite(scores).all()):
        raise UserError("scores", "finite numbers", "a NaN or an infinity")
    x, positive = scores.double(), positive.bool()
    w = torch.ones_like(x) if weight is None else weight.double()
    if w.shape != x.shape or not bool((w >= 0).all()):
        got = "a negative number" if w.shape == x.shape else f"shape {list(w.shape)}"
        raise UserError("weight", f"{len(x)} numbers of at least 0", got)
    positives, negatives = float(w[positive].sum()), float(w[~positive].sum())
    if positives <= 0 or negatives <= 0:
        got = f"total weights of {positives:g} and {negatives:g}"
        raise UserError("positive", "both positives and negatives", got)
    target = torch.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # Standardised scores keep the Newton system well conditioned.
    spread = float(x.std(correction=0)) or 1.0
    mean = float(x.mean())
    design = torch.stack([(x - mean) / spread, torch.ones_like(x)], 1)
    prior = torch.tensor((positives + 1) / (negatives + 1)).log().item()
    parameters = _maximise_likelihood(design, target, w, torch.tensor([0.0, prior], dtype=torch.float64))
    a = float(parameters[0]) / spread
    return a, float(parameters[1]) - a * mean


def _maximise_likelihood(design: Tensor, target: Tensor, weight: Tensor, parameters: Tensor) -> Tensor:
    """Fit a logistic regression by Newton's method.

    Args:
        design: ``[N, P]``, the features.
        target: ``[N]``, the probabilities to fit.
        weight: ``[N]``.
        parameters: ``[P]``, the starting point.

    Returns:
        The parameters ``[P]``.
    """
    loss = _loss(design, target, weight, parameters)
    for _ in range(_MAX_STEPS):
        probability = torch.sigmoid(design @ parameters)
        gradient = design.T @ (weight * (probability - target))
        if float(gradient.abs().max()) <= _GRADIENT_TOLERANCE * float(weight.sum()):
            break
        hessian = (design * (weight * probability * (1 - probability))[:, None]).T @ design
        hessian.diagonal().add_(1e-12)
        step = torch.linalg.solve(hessian, gradient)
        length = 1.0
        while length > _MIN_STEP_LENGTH:
            candidate = parameters - length * step
            reduced = _loss(design, target, weight, candidate)
            if reduced <= loss - 1e-4 * length * float(gradient @ step):
                break
            length /= 2
        else:
            break
        parameters, loss = candidate, reduced
    return parameters


def _loss(design: Tensor, target: Tensor, weight: Tensor, parameters: Tensor) -> float:
    """Compute the weighted cross-entropy."""
    logits = design @ parameters
    return float((weight * (torch.nn.functional.softplus(logits) - target * logits)).sum())

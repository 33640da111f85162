"""From scores to probabilities: a sigmoid fitted by maximum likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.errors import UserError

_STEPS = 100
_SHORTEST = 1e-10
_FLAT = 1e-9


def fit_sigmoid(scores: Tensor, positive: Tensor, weight: Tensor | None = None) -> tuple[float, float]:
    """Slope a and offset b of ``sigmoid(a * score + b)``, the chance that a score is a positive's.

    Platt's method: the targets are pulled towards the middle by one made-up case of each kind, so that
    separable scores give finite answers; Newton's method with a line search.

    Args:
        scores: ``[N]``, finite.
        positive: bool ``[N]``, some True and some False.
        weight: ``[N]``, at least 0; ones when None.

    Returns:
        a and b.

    Raises:
        UserError: shapes that do not fit, scores that are not finite, or positives or negatives missing.
    """
    if scores.ndim != 1 or positive.shape != scores.shape:
        raise UserError("positive", f"bool {list(scores.shape)}, as the scores", list(positive.shape))
    if not bool(torch.isfinite(scores).all()):
        raise UserError("scores", "finite numbers", "a NaN or an infinity")
    x, yes = scores.double(), positive.bool()
    w = torch.ones_like(x) if weight is None else weight.double()
    if w.shape != x.shape or not bool((w >= 0).all()):
        raise UserError(
            "weight", f"{len(x)} numbers of at least 0", f"shape {list(w.shape)} or a number below"
        )
    ups, downs = float(w[yes].sum()), float(w[~yes].sum())
    if ups <= 0 or downs <= 0:
        raise UserError("positive", "both positives and negatives", f"weights {ups:g} and {downs:g}")
    high, low = (ups + 1) / (ups + 2), 1 / (downs + 2)
    goal = torch.where(yes, high, low)
    # A slope in units of the scores' spread keeps the Newton system well conditioned.
    spread = float(x.std(correction=0)) or 1.0
    middle = float(x.mean())
    table = torch.stack([(x - middle) / spread, torch.ones_like(x)], 1)
    answer = torch.tensor([0.0, torch.tensor((ups + 1) / (downs + 1)).log().item()], dtype=torch.float64)
    loss = _loss(table, goal, w, answer)
    for _ in range(_STEPS):
        chance = torch.sigmoid(table @ answer)
        slope = table.T @ (w * (chance - goal))
        if float(slope.abs().max()) <= _FLAT * float(w.sum()):
            break
        curve = (table * (w * chance * (1 - chance))[:, None]).T @ table
        curve.diagonal().add_(1e-12)
        step = torch.linalg.solve(curve, slope)
        length = 1.0
        while length > _SHORTEST:
            tried = answer - length * step
            lower = _loss(table, goal, w, tried)
            if lower <= loss - 1e-4 * length * float(slope @ step):
                break
            length /= 2
        else:
            break
        answer, loss = tried, lower
    a = float(answer[0]) / spread
    return a, float(answer[1]) - a * middle


def _loss(table: Tensor, goal: Tensor, weight: Tensor, answer: Tensor) -> float:
    score = table @ answer
    return float((weight * (torch.nn.functional.softplus(score) - goal * score)).sum())

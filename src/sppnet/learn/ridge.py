"""Ridge regression with an intercept."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.learn.linear import LinearModel, check_rows


def fit_ridge(rows: Tensor, targets: Tensor, penalty: float, weight: Tensor | None = None) -> LinearModel:
    """Minimise ``sum_i weight_i |rows_i W + b - targets_i|^2 + penalty |W|^2``; b is not penalised.

    Solved by Cholesky on the smaller of the two Gram matrices (paper section 3.6 of the release).

    Args:
        rows: ``[N, D]``, any floating dtype.
        targets: ``[N, T]`` on the same device.
        penalty: above 0.
        weight: ``[N]``, at least 0, not all 0; ones when None.

    Returns:
        weight ``[T, D]`` and bias ``[T]`` in the rows' dtype.

    Raises:
        UserError: shapes that do not fit, a row that is not finite, a penalty or weights out of range.
    """
    rows = check_rows(rows)
    if targets.ndim != 2 or len(targets) != len(rows):
        raise UserError("targets", f"a matrix [{len(rows)}, T]", f"shape {list(targets.shape)}")
    if not 0 < penalty < float("inf"):
        raise UserError("penalty", "a finite number above 0", penalty)
    goal = targets.to(rows.dtype)
    if weight is None:
        weight = rows.new_ones(len(rows))
    if weight.shape != (len(rows),) or bool((weight < 0).any()) or not bool(weight.any()):
        raise UserError("weight", f"{len(rows)} numbers of at least 0, not all 0", f"shape {list(weight.shape)}")
    share = (weight / weight.sum()).to(rows.dtype)[:, None]
    row_mean, goal_mean = (rows * share).sum(0), (goal * share).sum(0)
    root = weight.sqrt().to(rows.dtype)[:, None]
    centred, wanted = (rows - row_mean) * root, (goal - goal_mean) * root
    if len(rows) < rows.shape[1]:
        solved = centred.T @ _solve(centred @ centred.T, wanted, penalty)
    else:
        solved = _solve(centred.T @ centred, centred.T @ wanted, penalty)
    return LinearModel(solved.T.contiguous(), goal_mean - row_mean @ solved)


def _solve(gram: Tensor, right: Tensor, penalty: float) -> Tensor:
    # Products of thousands of float32 rows leave a Gram matrix too rough for a small penalty.
    matrix = gram.double()
    matrix.diagonal().add_(penalty)
    return torch.cholesky_solve(right.double(), torch.linalg.cholesky(matrix)).to(right.dtype)

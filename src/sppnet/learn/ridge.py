"""Ridge regression with an intercept."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.learn._cholesky import solve_positive
from sppnet.learn.linear import LinearModel, check_rows

_CHUNK = 4096  # rows or columns that are centred at a time


def fit_ridge(rows: Tensor, targets: Tensor, penalty: float, weight: Tensor | None = None) -> LinearModel:
    """Minimise ``sum_i weight_i |rows_i W + b - targets_i|^2 + penalty |W|^2``; b is not penalised.

    Solved by Cholesky in float64 on the smaller of the two matrices of inner products, whose parts are
    computed in the rows' dtype (the release's box regressor, paper section 3.6).

    Args:
        rows: ``[N, D]``, any floating dtype.
        targets: ``[N, T]`` on the same device.
        penalty: above 0.
        weight: ``[N]``, at least 0, not all 0; ones when None.

    Returns:
        weight ``[T, D]`` and bias ``[T]`` in the rows' dtype.

    Raises:
        UserError: shapes that do not fit, a row or target that is not finite, a penalty or weights out
            of range.
    """
    rows = check_rows(rows)
    if targets.ndim != 2 or len(targets) != len(rows):
        raise UserError(
            "targets", f"a matrix [{len(rows)}, T], one line a row", f"shape {list(targets.shape)}"
        )
    if not bool(torch.isfinite(targets).all()):
        raise UserError("targets", "finite values", "a NaN or an infinity")
    if not 0 < penalty < float("inf"):
        raise UserError("penalty", "a finite number above 0", penalty)
    if weight is None:
        weight = rows.new_ones(len(rows))
    if weight.shape != (len(rows),):
        raise UserError("weight", f"a tensor [{len(rows)}]", f"shape {list(weight.shape)}")
    if not bool((weight >= 0).all()) or not 0 < float(weight.sum()) < float("inf"):
        raise UserError("weight", "finite numbers of at least 0, not all 0", weight.tolist()[:5])
    wide = weight.double()
    share = wide / wide.sum()
    row_mean = _mean(rows, share)
    goal = targets.double()
    goal_mean = share @ goal
    goal, root = goal - goal_mean, wide.sqrt()[:, None]
    if len(rows) < rows.shape[1]:
        gram = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
        for part, middle in zip(rows.split(_CHUNK, 1), row_mean.split(_CHUNK), strict=True):
            centred = (part - middle) * root.to(rows.dtype)
            gram += centred @ centred.T
        gram.diagonal().add_(penalty)
        dual = solve_positive(gram, goal * root) * root
        # Centred rows times dual weights, without a centred copy of all rows.
        solved = rows.T @ dual.to(rows.dtype) - torch.outer(row_mean, dual.sum(0).to(rows.dtype))
    else:
        gram = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
        right = rows.new_zeros(rows.shape[1], targets.shape[1], dtype=torch.float64)
        for part, scale, wanted in zip(
            rows.split(_CHUNK), root.split(_CHUNK), (goal * root).split(_CHUNK), strict=True
        ):
            centred = (part - row_mean) * scale.to(rows.dtype)
            gram += centred.T @ centred
            right += centred.T @ wanted.to(rows.dtype)
        gram.diagonal().add_(penalty)
        solved = solve_positive(gram, right).to(rows.dtype)
    return LinearModel(solved.T.contiguous(), goal_mean.to(rows.dtype) - row_mean @ solved)


def _mean(rows: Tensor, share: Tensor) -> Tensor:
    """The weighted mean ``[D]`` of the rows, summed up in float64."""
    total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for part, own in zip(rows.split(_CHUNK), share.split(_CHUNK), strict=True):
        total += own @ part.double()
    return total.to(rows.dtype)

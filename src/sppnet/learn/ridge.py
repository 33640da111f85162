"""Ridge regression with an intercept."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.learn._cholesky import solve_positive
from sppnet.learn.linear import LinearModel, check_rows

_CHUNK = 4096  # rows or columns that are centred per step
_BLOCK = 512  # columns per block of inner products


def fit_ridge(rows: Tensor, targets: Tensor, penalty: float, weight: Tensor | None = None) -> LinearModel:
    """Minimise ``sum_i weight_i |rows_i W + b - targets_i|^2 + penalty |W|^2``; b is not penalised.

    The smaller of the two matrices of inner products is computed in the dtype of the features and
    factorised in float64. The box regression of the paper (He et al. 2015, section 4.1) and of R-CNN
    (Girshick et al. 2014) is such a fit.

    Args:
        rows: features ``[N, D]``, any floating dtype.
        targets: ``[N, T]`` on the same device.
        penalty: above 0.
        weight: ``[N]``, sample weights of at least 0, not all 0; ones by default.

    Returns:
        A model with weight ``[T, D]`` and bias ``[T]`` in the dtype of the features.

    Raises:
        UserError: shapes differ, a feature or target is not finite, or ``penalty`` or ``weight`` is out
            of range.

    Examples:
        >>> import torch
        >>> x = torch.linspace(-1, 1, 50)[:, None]
        >>> model = fit_ridge(x, 3 * x + 100, 1e-6)
        >>> round(model.weight.item(), 3), round(model.bias.item(), 3)
        (3.0, 100.0)
    """
    rows = check_rows(rows)
    weight = _check(rows, targets, penalty, weight)
    share = weight / weight.sum()
    row_mean = _mean(rows, share)
    target_mean = share @ targets.double()
    centred, root = targets.double() - target_mean, weight.sqrt()[:, None]
    solve = _solve_dual if len(rows) < rows.shape[1] else _solve_primal
    solved = solve(rows, row_mean, centred, root, penalty)
    return LinearModel(solved.T.contiguous(), target_mean.to(rows.dtype) - row_mean @ solved)


def _check(rows: Tensor, targets: Tensor, penalty: float, weight: Tensor | None) -> Tensor:
    """Validate the arguments of `fit_ridge` and return the weights ``[N]`` in float64."""
    if targets.ndim != 2 or len(targets) != len(rows):
        expected = f"a matrix [{len(rows)}, T], one row per sample"
        raise UserError("targets", expected, f"shape {list(targets.shape)}")
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
    return weight.double()


def _solve_dual(rows: Tensor, row_mean: Tensor, targets: Tensor, root: Tensor, penalty: float) -> Tensor:
    """Solve for W ``[D, T]`` with the inner products of samples ``[N, N]``.

    Args:
        rows: features ``[N, D]``.
        row_mean: weighted mean of the features ``[D]``.
        targets: float64 ``[N, T]``, centred.
        root: float64 ``[N, 1]``, square roots of the sample weights.
        penalty: the penalty.
    """
    gram = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for chunk, mean in zip(rows.split(_CHUNK, 1), row_mean.split(_CHUNK), strict=True):
        centred = (chunk - mean) * root.to(rows.dtype)
        _add_inner_products(gram, centred.T)
    gram.diagonal().add_(penalty)
    dual = solve_positive(gram, targets * root) * root
    # This is the product of centred features and dual weights, without a centred copy of all features.
    return rows.T @ dual.to(rows.dtype) - torch.outer(row_mean, dual.sum(0).to(rows.dtype))


def _solve_primal(rows: Tensor, row_mean: Tensor, targets: Tensor, root: Tensor, penalty: float) -> Tensor:
    """Solve for W ``[D, T]`` with the inner products of columns ``[D, D]``; arguments as `_solve_dual`."""
    gram = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    right = rows.new_zeros(rows.shape[1], targets.shape[1], dtype=torch.float64)
    for chunk, scale, target in zip(
        rows.split(_CHUNK), root.split(_CHUNK), (targets * root).split(_CHUNK), strict=True
    ):
        centred = (chunk - row_mean) * scale.to(rows.dtype)
        _add_inner_products(gram, centred)
        right += centred.T @ target.to(rows.dtype)
    gram.diagonal().add_(penalty)
    return solve_positive(gram, right).to(rows.dtype)


def _add_inner_products(gram: Tensor, rows: Tensor) -> None:
    """Add the inner products of columns ``rows.T @ rows`` to the lower triangle of ``gram``, in blocks.

    The blocks above the diagonal, almost half of the products, are left out.
    """
    for start in range(0, rows.shape[1], _BLOCK):
        end = min(start + _BLOCK, rows.shape[1])
        gram[start:, start:end] += rows[:, start:].T @ rows[:, start:end]


def _mean(rows: Tensor, share: Tensor) -> Tensor:
    """Compute the weighted mean ``[D]`` of the features, accumulated in float64."""
    total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for chunk, weights in zip(rows.split(_CHUNK), share.split(_CHUNK), strict=True):
        total += weights @ chunk.double()
    return total.to(rows.dtype)

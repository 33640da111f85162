"""Symmetric systems that rounding may have left slightly indefinite."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.errors import UserError


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve ``matrix @ x = right`` by Cholesky's factors; ``matrix`` is overwritten.

    Inner products rounded to float32 may leave a matrix slightly indefinite where little was added to
    its diagonal; then the smallest sufficient of a few multiples of the identity is added.

    Args:
        matrix: float64 ``[n, n]``, symmetric, positive definite but for rounding.
        right: float64 ``[n, T]``.

    Returns:
        float64 ``[n, T]``.

    Raises:
        UserError: ``matrix`` is not finite: inner products of huge rows overflowed.
    """
    if not bool(torch.isfinite(matrix).all()):
        raise UserError(
            "rows", "values whose inner products float32 can hold", "an overflow", "Scale the rows"
        )
    factor, failed = torch.linalg.cholesky_ex(matrix)
    extra = 1e-8 * float(matrix.diagonal().mean()) if bool(failed) else 0.0
    while bool(failed):
        matrix.diagonal().add_(extra)
        extra *= 4
        factor, failed = torch.linalg.cholesky_ex(matrix)
    # Two triangular solutions: cholesky_solve was measured far slower for few columns on several threads.
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)

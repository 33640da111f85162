"""Solve symmetric systems that rounding may have made slightly indefinite."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.errors import UserError


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve ``matrix @ x = right`` by Cholesky factorisation; ``matrix`` is overwritten.

    Inner products rounded to float32 may make a matrix slightly indefinite when its regularisation is
    weak. Multiples of the identity, starting at 1e-8 of the mean diagonal and growing by a factor of 4,
    are then added until the factorisation succeeds.

    Args:
        matrix: float64 ``[n, n]``, symmetric, positive definite up to rounding; only its lower
            triangle is read.
        right: float64 ``[n, T]``.

    Returns:
        float64 ``[n, T]``.

    Raises:
        UserError: ``matrix`` is not finite because inner products of large features overflowed.
    """
    if not bool(torch.isfinite(matrix).all()):
        raise UserError(
            "rows", "values whose inner products fit in float32", "an overflow", "Scale the features."
        )
    factor, failed = torch.linalg.cholesky_ex(matrix)
    extra = 1e-8 * float(matrix.diagonal().mean()) if bool(failed) else 0.0
    while bool(failed):
        matrix.diagonal().add_(extra)
        extra *= 4
        factor, failed = torch.linalg.cholesky_ex(matrix)
    # Two triangular solves: cholesky_solve is much slower for few columns on several threads.
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)

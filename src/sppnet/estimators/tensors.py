"""Check the tensors of a saved estimator against a table of names, shapes and dtypes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.errors import UserError

LARGEST = 1e15
"""Largest magnitude of a saved number, so that sums of products of weights and features stay finite."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a table.

    Attributes:
        name: the name in the file.
        shape: sizes, each a number, a letter or an expression such as ``"4*K"`` and ``"K+1"``. A letter is
            one size in the whole table, given by the caller or by the first tensor with the letter.
        dtype: the element type.

    Examples:
        >>> TensorSpec("svm.weight", ("K", "D")).dtype
        torch.float32
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype = torch.float32


def check_tensors(
    tensors: Mapping[str, Tensor],
    table: Sequence[TensorSpec],
    where: object,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Check names, dtypes, shapes and values of saved tensors.

    Args:
        tensors: the tensors of the file, by name.
        table: the expected tensors.
        where: the file, for messages.
        sizes: known values of letters.

    Returns:
        The value of every letter, each at least 1.

    Raises:
        UserError: a tensor is missing, unexpected, or of another dtype or shape, or has a number that is not
            finite or exceeds 1e15.

    Examples:
        >>> table = [TensorSpec("weight", ("K", "D")), TensorSpec("bias", ("K",))]
        >>> check_tensors({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, table, "file", {"K": 2})
        {'K': 2, 'D': 3}
    """
    known = dict(sizes or {})
    expected = {spec.name: spec for spec in table}
    for name in sorted(expected.keys() ^ tensors.keys()):
        if name in expected:
            raise UserError(where, f"the tensor {name}", "a file without it", "Fit again.")
        raise UserError(
            where, f"the {len(expected)} tensors of the run", f"the unexpected tensor {name[:60]!r}"
        )
    for name, spec in expected.items():
        tensor = tensors[name]
        if tensor.dtype != spec.dtype:
            raise UserError(where, f"{name} of {spec.dtype}", tensor.dtype, "Fit again.")
        shape = list(tensor.shape)
        if len(shape) != len(spec.shape):
            raise UserError(where, f"{name} of {len(spec.shape)} dimensions", f"shape {shape}", "Fit again.")
        for size, expression in zip(shape, spec.shape, strict=True):
            if isinstance(expression, str) and expression.isalpha():
                known.setdefault(expression, size)
            if size != _value(expression, known) or size == 0:
                expected_shape = [_value(e, known, default=e) for e in spec.shape]
                raise UserError(where, f"{name} of shape {expected_shape}", f"shape {shape}", "Fit again.")
    check_finite(tensors, where)
    return known


def check_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise `UserError` for the first tensor with a number that is not finite or exceeds 1e15."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            largest = float(torch.linalg.vector_norm(tensor, math.inf, dtype=_wide(tensor)))
            if not largest <= LARGEST:
                raise UserError(where, f"finite numbers in {name}", largest, "Fit again.")


def check_window_shapes(shapes: Tensor, where: object) -> None:
    """Raise `UserError` unless window shapes are 1e-4 to 1e3 in units of an image's short side."""
    if not bool(((shapes >= 1e-4) & (shapes <= 1e3)).all()):
        raise UserError(where, "shapes of windows, 1e-4 to 1e3", "values out of this range", "Fit again.")


def same_shapes(state: Mapping[str, Tensor], prefix: str = "") -> Iterable[TensorSpec]:
    """Return the table of a module's state, with the shape and the dtype of each tensor."""
    return [TensorSpec(prefix + name, tuple(value.shape), value.dtype) for name, value in state.items()]


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _value(expression: int | str, known: Mapping[str, int], default: int | str = -1) -> int | str:
    """Evaluate an expression such as ``4*K`` or ``K+1`` with known letters, else return the default."""
    if isinstance(expression, int):
        return expression
    for sign in "*+":
        first, found, second = expression.partition(sign)
        if found:
            left, right = (int(term) if term.isdigit() else known.get(term) for term in (first, second))
            if left is None or right is None:
                return default
            return left * right if sign == "*" else left + right
    return known.get(expression, default)

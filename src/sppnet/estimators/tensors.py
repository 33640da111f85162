"""The tensors that a saved estimator must have, as a table, and the check of a file against it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.errors import UserError

LARGEST = 1e15
"""Largest magnitude of a saved number: sums of products of such weights and features stay finite."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a table.

    Attributes:
        name: its name in the file.
        shape: sizes: numbers, letters, or ``"4*K"`` and ``"K+1"``. A letter stands for one size in the whole
            table; the first tensor that has it decides what it is, where the caller does not.
        dtype: its type.

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
        tensors: what the file has; exactly the table's names.
        table: what it must have.
        where: the file, for messages.
        sizes: letters whose value is known.

    Returns:
        The value of every letter; none is 0.

    Raises:
        UserError: the first difference: a missing or further tensor, another dtype or shape, or a number
            that is not finite or beyond 1e15.

    Examples:
        >>> table = [TensorSpec("weight", ("K", "D")), TensorSpec("bias", ("K",))]
        >>> check_tensors({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, table, "file", {"K": 2})
        {'K': 2, 'D': 3}
    """
    known = dict(sizes or {})
    wanted = {spec.name: spec for spec in table}
    for name in sorted(wanted.keys() ^ tensors.keys()):
        if name in wanted:
            raise UserError(where, f"the tensor {name}", "a file without it", "Fit again.")
        raise UserError(where, f"the {len(wanted)} tensors of the run", f"a further one, {name[:60]!r}")
    for name, spec in wanted.items():
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
                wanted_shape = [_value(e, known, default=e) for e in spec.shape]
                raise UserError(where, f"{name} of shape {wanted_shape}", f"shape {shape}", "Fit again.")
    check_finite(tensors, where)
    return known


def check_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise `UserError` for the first tensor with a number that is not finite or beyond 1e15."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            most = float(torch.linalg.vector_norm(tensor, math.inf, dtype=_wide(tensor)))
            if not most <= LARGEST:
                raise UserError(where, f"finite numbers in {name}", most, "Fit again.")


def check_window_shapes(shapes: Tensor, where: object) -> None:
    """Raise `UserError` unless window shapes are 1e-4 to 1e3 in units of an image's short side."""
    if not bool(((shapes >= 1e-4) & (shapes <= 1e3)).all()):
        raise UserError(where, "shapes of windows, 1e-4 to 1e3", "others", "Fit again.")


def same_shapes(state: Mapping[str, Tensor], prefix: str = "") -> Iterable[TensorSpec]:
    """A row for each tensor of a module's state: its own shape and dtype."""
    return [TensorSpec(prefix + name, tuple(value.shape), value.dtype) for name, value in state.items()]


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _value(expression: int | str, known: Mapping[str, int], default: int | str = -1) -> int | str:
    """``4*K`` and ``K+1`` for the letters that are known."""
    if isinstance(expression, int):
        return expression
    for sign in "*+":
        first, found, second = expression.partition(sign)
        if found:
            one, two = (int(part) if part.isdigit() else known.get(part) for part in (first, second))
            if one is None or two is None:
                return default
            return one * two if sign == "*" else one + two
    return known.get(expression, default)

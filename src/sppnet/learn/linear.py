"""The linear model that every fit of this room returns, and targets for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.errors import UserError


@dataclass(frozen=True)
class LinearModel:
    """K linear functions of a row of D features.

    Attributes:
        weight: ``[K, D]``.
        bias: ``[K]``.

    Raises:
        UserError: the shapes do not fit together.
    """

    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        if self.weight.ndim != 2:
            raise UserError("LinearModel.weight", "a tensor [K, D]", f"shape {list(self.weight.shape)}")
        if self.bias.shape != self.weight.shape[:1]:
            wanted = f"a tensor [{self.weight.shape[0]}], one entry a row of weight"
            raise UserError("LinearModel.bias", wanted, f"shape {list(self.bias.shape)}")

    def scores(self, rows: Tensor) -> Tensor:
        """``rows [N, D]`` to ``[N, K]``: ``rows @ weight.T + bias``, on the device of the rows."""
        return torch.addmm(self.bias.to(rows.device), rows, self.weight.to(rows.device).T)


def one_versus_rest(labels: Tensor, classes: int) -> Tensor:
    """Targets that set each class against all others.

    Args:
        labels: int64 ``[N]``, each in ``0..classes - 1``, or -1 for a row of no class: a negative of all.
        classes: K.

    Returns:
        int8 ``[N, K]``: +1 where the row is of the class, -1 elsewhere.

    Raises:
        UserError: another shape, or a label outside its range.
    """
    if labels.ndim != 1:
        raise UserError("labels", "a tensor [N]", f"shape {list(labels.shape)}")
    if labels.numel() and (int(labels.min()) < -1 or int(labels.max()) >= classes):
        got = f"{int(labels.min())}..{int(labels.max())}"
        raise UserError("labels", f"class numbers -1..{classes - 1}", got)
    numbers = torch.arange(classes, device=labels.device)
    return (labels[:, None] == numbers).to(torch.int8) * 2 - 1


def check_rows(rows: Tensor) -> Tensor:
    """``rows [N, D]`` as a contiguous float32 or float64 matrix; both sizes at least 1, all values finite.

    Raises:
        UserError: another shape, no floating dtype, or a NaN or infinity (the first such row is named).
    """
    if rows.ndim != 2 or 0 in rows.shape:
        raise UserError("rows", "a matrix [N, D], neither of them 0", f"shape {list(rows.shape)}")
    if not rows.dtype.is_floating_point:
        raise UserError("rows", "a floating dtype", rows.dtype)
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.float()
    # A sum is not finite when a term is not; only then are the rows looked at one by one.
    sums = rows.sum(1)
    if not bool(torch.isfinite(sums).all()):
        bad = ~torch.isfinite(rows).all(1)
        if bool(bad.any()):
            raise UserError(f"rows[{int(bad.nonzero()[0, 0])}]", "finite values", "a NaN or an infinity")
    return rows.contiguous()

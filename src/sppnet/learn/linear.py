"""The linear model that the solvers return, and one-versus-rest targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.errors import UserError


@dataclass(frozen=True)
class LinearModel:
    """K linear functions of a feature vector of length D.

    Attributes:
        weight: ``[K, D]``.
        bias: ``[K]``.

    Raises:
        UserError: ``weight`` is not a matrix, or ``bias`` has another length than it.

    Examples:
        >>> import torch
        >>> model = LinearModel(torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]))
        >>> model.scores(torch.tensor([[2.0, 4.0]]))
        tensor([[10.5000]])
    """

    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        if self.weight.ndim != 2:
            raise UserError("LinearModel.weight", "a tensor [K, D]", f"shape {list(self.weight.shape)}")
        if self.bias.shape != self.weight.shape[:1]:
            expected = f"a tensor [{self.weight.shape[0]}], one entry per row of weight"
            raise UserError("LinearModel.bias", expected, f"shape {list(self.bias.shape)}")

    def scores(self, rows: Tensor) -> Tensor:
        """Compute ``rows @ weight.T + bias`` on the device of ``rows``.

        Args:
            rows: features ``[N, D]``.

        Returns:
            The scores ``[N, K]``.
        """
        return torch.addmm(self.bias.to(rows.device), rows, self.weight.to(rows.device).T)


def one_versus_rest(labels: Tensor, classes: int) -> Tensor:
    """Turn labels into targets of one classifier per class.

    Args:
        labels: int64 ``[N]``, class numbers ``0..classes - 1``, or -1 for a negative of every class.
        classes: number of classes K.

    Returns:
        int8 ``[N, K]``: +1 for the class of the sample, -1 for the others.

    Raises:
        UserError: ``labels`` is not one-dimensional or has a label out of range.

    Examples:
        >>> import torch
        >>> one_versus_rest(torch.tensor([1, -1]), 2).tolist()
        [[-1, 1], [-1, -1]]
    """
    if labels.ndim != 1:
        raise UserError("labels", "a tensor [N]", f"shape {list(labels.shape)}")
    if labels.numel() and (int(labels.min()) < -1 or int(labels.max()) >= classes):
        got = f"{int(labels.min())}..{int(labels.max())}"
        raise UserError("labels", f"class numbers -1..{classes - 1}", got)
    numbers = torch.arange(classes, device=labels.device)
    return (labels[:, None] == numbers).to(torch.int8) * 2 - 1


def check_rows(rows: Tensor) -> Tensor:
    """Validate features and make them a contiguous float32 or float64 matrix.

    Args:
        rows: features ``[N, D]``.

    Returns:
        The features, copied only if the dtype or the memory layout changes.

    Raises:
        UserError: ``rows`` is not a matrix, is empty, has no floating dtype, or has a NaN or an infinity.
    """
    if rows.ndim != 2 or 0 in rows.shape:
        raise UserError("rows", "a matrix [N, D] with N and D of at least 1", f"shape {list(rows.shape)}")
    if not rows.dtype.is_floating_point:
        raise UserError("rows", "a floating dtype", rows.dtype)
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.float()
    # A sum with a term that is not finite is not finite either: only then is every value checked.
    sums = rows.sum(1)
    if not bool(torch.isfinite(sums).all()):
        bad = ~torch.isfinite(rows).all(1)
        if bool(bad.any()):
            raise UserError(f"rows[{int(bad.nonzero()[0, 0])}]", "finite values", "a NaN or an infinity")
    return rows.contiguous()

"""Where the weights of a regularised linear problem live while it is being solved.

By the representer theorem the solution is a combination of the rows. With more rows than columns the
weights themselves are the cheaper unknowns (`RowSpace`); with fewer, the coefficients of the rows are
(`GramSpace`). The solver sees only the products that both offer. K unknown vectors travel together as
the rows of one matrix, so that every product is one large matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sppnet.learn._cholesky import solve_positive
from sppnet.ops import linear

_CHUNK = 4096  # rows gathered, or columns converted, at a time
_BLOCK = 1024  # rows whose inner products with all before them are one matrix product


class Space(Protocol):
    """K unknown vectors ``[K, V]`` of a problem with N rows."""

    def zeros(self, classes: int) -> Tensor:
        """``[K, V]``."""
        ...

    def scores(self, vectors: Tensor) -> Tensor:
        """``[K, V]`` to ``[K, N]``: every vector's score of every row."""
        ...

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """``[K, N]`` to ``[K, V]``: the combinations of the rows."""
        ...

    def dot(self, one: Tensor, two: Tensor) -> Tensor:
        """``[K, V]`` twice to ``[K]``: inner products of the weights, the bias's included."""
        ...

    def mean_square(self) -> float:
        """The mean over the rows of their squared norm, the bias feature's share included."""
        ...

    def curved(self, vectors: Tensor, curvature: Tensor) -> Tensor:
        """``adjoint(curvature * scores(vectors))``, with ``curvature [K, N]``."""
        ...

    def narrow(self, mask: Tensor, classes: int) -> tuple[Space, Tensor]:
        """The same unknowns of so many vectors seen by fewer rows: all in ``mask [N]``; which are kept."""
        ...

    def newton_step(self, gradient: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        """Solve ``(I + X_A^T diag(1/inverse) X_A) step = -gradient`` for one vector ``[V]``.

        Args:
            gradient: ``[V]``.
            index: int64 ``[n]``, the rows A.
            inverse: ``[n]``, one over the curvature of each of them.
        """
        ...


@dataclass(frozen=True)
class RowSpace:
    """The unknowns are the weights and, last, the weight of the constant bias feature: V = D + 1.

    Attributes:
        rows: ``[N, D]``.
        bias_feature: the value of the constant feature.
        dtype: of the unknowns and of all arithmetic; wider than the rows' own, rows are converted in
            pieces, whenever they are used.
    """

    rows: Tensor
    bias_feature: float
    dtype: torch.dtype

    def zeros(self, classes: int) -> Tensor:
        return self.rows.new_zeros(classes, self.rows.shape[1] + 1, dtype=self.dtype)

    def scores(self, vectors: Tensor) -> Tensor:
        if self._fast(len(vectors)):
            result = linear.row_products(self.rows, vectors[:, :-1])
        elif self.rows.dtype == self.dtype:
            result = vectors[:, :-1] @ self.rows.T
        else:
            pieces = [vectors[:, :-1] @ part.to(self.dtype).T for part in self.rows.split(_CHUNK)]
            result = torch.cat(pieces, 1)
        return result.add_(self.bias_feature * vectors[:, -1:])

    def adjoint(self, coefficients: Tensor) -> Tensor:
        result = self.zeros(len(coefficients))
        result[:, -1] = self.bias_feature * coefficients.sum(1)
        if self._fast(len(coefficients)):
            result[:, :-1] = linear.row_sums(self.rows, coefficients)
            return result
        used = (coefficients != 0).any(0).nonzero()[:, 0]
        if self.rows.dtype == self.dtype and 3 * len(used) > len(self.rows):
            result[:, :-1] = coefficients @ self.rows
            return result
        for part in used.split(_CHUNK):
            result[:, :-1] += coefficients[:, part] @ self._rows(part)
        return result

    def curved(self, vectors: Tensor, curvature: Tensor) -> Tensor:
        if not self._fast(len(vectors)):
            return self.adjoint(curvature * self.scores(vectors))
        offsets = self.bias_feature * vectors[:, -1]
        sums, total = linear.curved_products(self.rows, vectors[:, :-1], offsets, curvature)
        return torch.cat([sums, self.bias_feature * total[:, None]], 1)

    def dot(self, one: Tensor, two: Tensor) -> Tensor:
        return (one * two).sum(1)

    def mean_square(self) -> float:
        return float(torch.linalg.vector_norm(self.rows)) ** 2 / len(self.rows) + self.bias_feature**2

    def narrow(self, mask: Tensor, classes: int) -> tuple[Space, Tensor]:
        kept = mask.nonzero()[:, 0]
        # Fast products leave out idle rows by themselves. A copy of more than half of the rows would cost
        # more memory than it saves time.
        if self._fast(classes) or 2 * len(kept) > len(self.rows):
            return self, torch.arange(len(self.rows), device=self.rows.device)
        return RowSpace(self._rows(kept), self.bias_feature, self.dtype), kept

    def newton_step(self, gradient: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        rows = self._rows(index)
        gram = (rows @ rows.T).double().add_(self.bias_feature**2)
        gram.diagonal().add_(inverse.double())
        right = rows @ gradient[:-1] + self.bias_feature * gradient[-1]
        change = solve_positive(gram, right.double()[:, None])[:, 0].to(self.dtype)
        step = -gradient
        step[:-1] += change @ rows
        step[-1] += self.bias_feature * change.sum()
        return step

    def _fast(self, count: int) -> bool:
        return self.rows.dtype == self.dtype and linear.suits(self.rows, count)

    def _rows(self, index: Tensor) -> Tensor:
        return self.rows.index_select(0, index).to(self.dtype)


@dataclass(frozen=True)
class GramSpace:
    """The unknowns are the coefficients of the rows: V = N. Only inner products of rows are needed.

    Attributes:
        gram: ``[N, N]``, the inner products of the rows, the bias feature's share included.
    """

    gram: Tensor

    @staticmethod
    def of(
        rows: Tensor, bias_feature: float, dtype: torch.dtype, products: torch.dtype | None = None
    ) -> GramSpace:
        """The space of ``rows [N, D]``.

        Args:
            rows: the rows.
            bias_feature: the value of the constant feature.
            dtype: of the inner products as they are kept.
            products: what they are computed in; ``dtype`` when None.
        """
        products = products or dtype
        gram = rows.new_full((len(rows), len(rows)), bias_feature**2, dtype=products)
        # Pieces of the columns are all that is ever converted.
        for part in rows.split(rows.shape[1] if rows.dtype == products else _CHUNK, 1):
            wide = part.to(products)
            for start in range(0, len(rows), _BLOCK):
                end = start + _BLOCK
                gram[start:end, :end].addmm_(wide[start:end], wide[:end].T)
        for start in range(_BLOCK, len(rows), _BLOCK):
            gram[:start, start : start + _BLOCK] = gram[start : start + _BLOCK, :start].T
        return GramSpace(gram.to(dtype))

    def zeros(self, classes: int) -> Tensor:
        return self.gram.new_zeros(classes, len(self.gram))

    def scores(self, vectors: Tensor) -> Tensor:
        return vectors @ self.gram

    def adjoint(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def dot(self, one: Tensor, two: Tensor) -> Tensor:
        product = (one * self.scores(two)).sum(1)
        return product.clamp_(min=0) if one is two else product

    def mean_square(self) -> float:
        return float(self.gram.diagonal().mean())

    def curved(self, vectors: Tensor, curvature: Tensor) -> Tensor:
        return curvature * self.scores(vectors)

    def narrow(self, mask: Tensor, classes: int) -> tuple[Space, Tensor]:
        return self, torch.arange(len(mask), device=mask.device)

    def newton_step(self, gradient: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        block = self.gram.index_select(0, index)
        gram = block.index_select(1, index).double()
        gram.diagonal().add_(inverse.double())
        change = solve_positive(gram, (block @ gradient).double()[:, None])[:, 0]
        return (-gradient).index_add_(0, index, change.to(gradient.dtype))

"""Primal and dual unknowns of a regularised linear problem.

By the representer theorem the solution is a linear combination of the samples. With more samples than
columns, the weights are the cheaper unknowns (`RowSpace`). With fewer, the coefficients of the samples
are (`GramSpace`). The solver uses only the products that both implement. K vectors of unknowns are the
rows of one matrix, so that every product is one large matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sppnet.learn._cholesky import solve_positive
from sppnet.ops import linear

_CHUNK = 4096  # rows gathered, or columns converted, per step
_BLOCK = 1024  # rows per matrix product when the lower triangle of the Gram matrix is computed


class Space(Protocol):
    """The products of a problem with N samples, for K vectors of V unknowns."""

    def zeros(self, classes: int) -> Tensor:
        """Return unknowns of zero, ``[K, V]``."""
        ...

    def scores(self, vectors: Tensor) -> Tensor:
        """Compute the scores ``[K, N]`` of all samples for ``vectors [K, V]``."""
        ...

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """Combine the samples with ``coefficients [K, N]`` to vectors ``[K, V]``."""
        ...

    def dot(self, one: Tensor, two: Tensor) -> Tensor:
        """Compute the inner products ``[K]`` of weights and bias weights, from ``[K, V]`` twice."""
        ...

    def mean_square(self) -> float:
        """Compute the mean squared norm of the samples with their bias feature."""
        ...

    def curved(self, vectors: Tensor, curvature: Tensor) -> Tensor:
        """Compute ``adjoint(curvature * scores(vectors))``, with ``curvature [K, N]``."""
        ...

    def narrow(self, mask: Tensor, classes: int) -> tuple[Space, Tensor]:
        """Restrict the problem to samples.

        Args:
            mask: bool ``[N]``, the samples that are needed.
            classes: number of vectors that the new space is used for.

        Returns:
            A space of at least these samples, and the indices of its samples.
        """
        ...

    def newton_step(self, gradient: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        """Solve ``(I + X_A^T diag(1/inverse) X_A) step = -gradient`` for one vector ``[V]``.

        Args:
            gradient: ``[V]``.
            index: int64 ``[n]``, the samples A.
            inverse: ``[n]``, one over the curvature of each of them.

        Returns:
            The step ``[V]``.
        """
        ...


@dataclass(frozen=True)
class RowSpace:
    """A space whose unknowns are the weights and, last, the weight of the bias feature: V = D + 1.

    Attributes:
        rows: features ``[N, D]``.
        bias_feature: value of the constant feature.
        dtype: dtype of the unknowns and of the arithmetic. If it is wider than that of the features, these
            are converted in chunks in every product.
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
        used = mask.nonzero()[:, 0]
        # The fast products skip samples of curvature 0. A copy of more than half of the features would
        # cost more memory than it saves time.
        if self._fast(classes) or 2 * len(used) > len(self.rows):
            return self, torch.arange(len(self.rows), device=self.rows.device)
        return RowSpace(self._rows(used), self.bias_feature, self.dtype), used

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
        """Return whether the kernels of `sppnet.ops.linear` apply to ``count`` vectors."""
        return self.rows.dtype == self.dtype and linear.suits(self.rows, count)

    def _rows(self, index: Tensor) -> Tensor:
        """Gather features in the dtype of the arithmetic."""
        return self.rows.index_select(0, index).to(self.dtype)


@dataclass(frozen=True)
class GramSpace:
    """A space whose unknowns are the coefficients of the samples: V = N.

    Attributes:
        gram: ``[N, N]``, the inner products of the samples with their bias feature.
    """

    gram: Tensor

    @staticmethod
    def of(
        rows: Tensor, bias_feature: float, dtype: torch.dtype, products: torch.dtype | None = None
    ) -> GramSpace:
        """Compute the inner products of ``rows``.

        Args:
            rows: features ``[N, D]``.
            bias_feature: value of the constant feature.
            dtype: dtype of the stored inner products.
            products: dtype of their computation; ``dtype`` by default.
        """
        products = products or dtype
        gram = rows.new_full((len(rows), len(rows)), bias_feature**2, dtype=products)
        # Columns are converted in chunks, so that no converted copy of all features is needed.
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

"""Cache of hard negatives of one SVM, with the rules of the SPP_net release, spp_train.m."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sppnet.errors import UserError


@dataclass(frozen=True)
class NegativeRule:
    """Thresholds of the cache; the defaults are those of the SPP_net release, spp_train.m.

    Attributes:
        add_above: negatives with a decision score above this are added.
        evict_below: after a fit, negatives with a decision score below this are removed. It is below
            ``add_above``, so that removed negatives are not added again at once.
        refit_after: a fit is due when more negatives than this have been added since the last fit.
        capacity: maximum number of negatives. Those of the highest scores stay; `NegativeCache.dropped`
            counts the others.

    Raises:
        UserError: ``evict_below`` is above ``add_above``, or a count is below 1.

    Examples:
        >>> NegativeRule(capacity=10).refit_after
        2000
    """

    add_above: float = -1.0001
    evict_below: float = -1.2
    refit_after: int = 2000
    capacity: int = 100_000

    def __post_init__(self) -> None:
        if not self.evict_below <= self.add_above:
            expected = f"at most add_above, {self.add_above}"
            raise UserError("NegativeRule.evict_below", expected, self.evict_below)
        for name in ("refit_after", "capacity"):
            value: int = getattr(self, name)
            if value < 1:
                raise UserError(f"NegativeRule.{name}", "at least 1", value)


@dataclass(frozen=True)
class NegativeCache:
    """The hard negatives of one class. The cache is immutable: `add` and `evict` return a new one.

    Attributes:
        rule: the thresholds.
        pieces: features ``[M_i, D]`` of each call of `add`; `rows` concatenates them.
        scores: ``[M]``, decision scores by the SVM at the last `evict`, or at `add` for newer negatives.
        keys: int64 ``[M]``, identifiers of the proposals; a key is added only once.
        fresh: number of negatives added since the last `evict`.
        dropped: total number of negatives discarded because the cache was full.

    Examples:
        >>> import torch
        >>> features, scores = torch.ones(3, 2), torch.tensor([0.5, -3.0, -0.2])
        >>> cache = NegativeCache.empty().add(features, scores, torch.arange(3))
        >>> cache.keys.tolist()
        [0, 2]
    """

    rule: NegativeRule
    pieces: tuple[Tensor, ...]
    scores: Tensor
    keys: Tensor
    fresh: int
    dropped: int = 0

    @staticmethod
    def empty(rule: NegativeRule | None = None) -> NegativeCache:
        """Create a cache without negatives."""
        return NegativeCache(rule or NegativeRule(), (), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def due(self) -> bool:
        """Whether more than ``refit_after`` negatives have been added since the last fit."""
        return self.fresh > self.rule.refit_after

    @property
    def rows(self) -> Tensor:
        """The features ``[M, D]`` of all negatives, concatenated.

        Raises:
            UserError: no negative has been added yet, so that D is unknown.
        """
        if not self.pieces:
            raise UserError("NegativeCache.rows", "at least one negative", "none")
        return torch.cat(self.pieces)

    def wanted(self, scores: Tensor, keys: Tensor) -> Tensor:
        """Select the negatives that `add` would add, so that features are pooled only for these.

        Args:
            scores: ``[N]``, decision scores by the current SVM; before the first fit, any value above
                ``add_above``.
            keys: int64 ``[N]``.

        Returns:
            bool ``[N]``.

        Raises:
            UserError: ``scores`` and ``keys`` differ in shape.
        """
        if scores.shape != keys.shape or scores.ndim != 1:
            expected = f"one key per score, shape {list(scores.shape)}"
            raise UserError("keys", expected, f"shape {list(keys.shape)}")
        return (scores > self.rule.add_above) & ~torch.isin(keys, self.keys.to(keys.device))

    def add(self, rows: Tensor, scores: Tensor, keys: Tensor) -> NegativeCache:
        """Add the negatives that `wanted` selects.

        Args:
            rows: features ``[N, D]``.
            scores: ``[N]``, decision scores by the current SVM.
            keys: int64 ``[N]``.

        Returns:
            The new cache.

        Raises:
            UserError: the lengths differ, or D differs from that of earlier negatives.
        """
        if rows.ndim != 2 or len(rows) != len(scores):
            expected = f"a matrix [{len(scores)}, D], one feature vector per score"
            raise UserError("rows", expected, f"shape {list(rows.shape)}")
        take = self.wanted(scores, keys)
        if self.pieces and rows.shape[1] != self.pieces[0].shape[1]:
            expected = f"{self.pieces[0].shape[1]} columns as in earlier calls"
            raise UserError("rows", expected, rows.shape[1])
        count = int(take.sum())
        if not count:
            return self
        full = NegativeCache(
            self.rule,
            (*self.pieces, rows[take]),
            torch.cat([self.scores.to(scores), scores[take]]),
            torch.cat([self.keys.to(keys), keys[take]]),
            self.fresh + count,
            self.dropped,
        )
        if len(full) <= self.rule.capacity:
            return full
        hardest = full.scores.topk(self.rule.capacity).indices.sort().values
        dropped = self.dropped + len(full) - self.rule.capacity
        return replace(full._select(hardest), dropped=dropped)

    def evict(self, scores: Tensor) -> NegativeCache:
        """Remove the negatives that the newly fitted SVM scores below ``evict_below``.

        Args:
            scores: ``[M]``, decision scores of `rows` by the new SVM.

        Returns:
            The new cache.

        Raises:
            UserError: ``scores`` has another length than the cache.
        """
        if scores.shape != self.keys.shape:
            expected = f"one score per negative, shape [{len(self)}]"
            raise UserError("scores", expected, f"shape {list(scores.shape)}")
        hard = (scores >= self.rule.evict_below).nonzero()[:, 0]
        updated = replace(self, scores=scores, fresh=0)
        return updated if len(hard) == len(self) else updated._select(hard)

    def _select(self, index: Tensor) -> NegativeCache:
        """Select negatives by ascending indices; pieces of which all are selected are not copied."""
        pieces: list[Tensor] = []
        start = 0
        for piece in self.pieces:
            own = index[(index >= start) & (index < start + len(piece))] - start
            pieces.append(piece if len(own) == len(piece) else piece[own])
            start += len(piece)
        # Empty pieces are removed; if all are empty, one stays because it determines D.
        filled = tuple(piece for piece in pieces if len(piece)) or (pieces[0],)
        return replace(self, pieces=filled, scores=self.scores[index], keys=self.keys[index])

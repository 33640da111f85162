"""Bookkeeping of hard negatives for one SVM (paper section 3.4, by the release's rule)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sppnet.errors import UserError


@dataclass(frozen=True)
class NegativeRule:
    """When a negative is kept, and when the SVM is fitted anew; the defaults are the release's.

    Attributes:
        add_above: a negative that scores more is added.
        evict_below: after a fit, negatives that score less are dropped; below ``add_above``, so that
            none is dropped and found again at once.
        refit_after: a fit is due when more negatives than this were added since the last one.
        capacity: at most so many are held; of more, those that score highest. `NegativeCache.dropped` counts
            the others.

    Raises:
        UserError: ``evict_below`` above ``add_above``, or a number below 1.
    """

    add_above: float = -1.0001
    evict_below: float = -1.2
    refit_after: int = 2000
    capacity: int = 100_000

    def __post_init__(self) -> None:
        if not self.evict_below <= self.add_above:
            wanted = f"at most add_above, {self.add_above}"
            raise UserError("NegativeRule.evict_below", wanted, self.evict_below)
        for name in ("refit_after", "capacity"):
            value: int = getattr(self, name)
            if value < 1:
                raise UserError(f"NegativeRule.{name}", "at least 1", value)


@dataclass(frozen=True)
class NegativeCache:
    """The negatives of one class that are worth fitting on; adding and evicting give new caches.

    Attributes:
        rule: what is kept.
        pieces: rows ``[M_i, D]`` as they came; `rows` joins them.
        scores: ``[M]``, by the SVM that added them or, after `evict`, by the one that kept them.
        keys: int64 ``[M]``, the caller's number of each window, by which none is added twice.
        fresh: how many were added since the last `evict`.
        dropped: how many that `add` was given had no room, in all.
    """

    rule: NegativeRule
    pieces: tuple[Tensor, ...]
    scores: Tensor
    keys: Tensor
    fresh: int
    dropped: int = 0

    @staticmethod
    def empty(rule: NegativeRule | None = None) -> NegativeCache:
        """Nothing held."""
        return NegativeCache(rule or NegativeRule(), (), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def due(self) -> bool:
        """Whether enough was added for another fit."""
        return self.fresh > self.rule.refit_after

    @property
    def rows(self) -> Tensor:
        """All rows held, ``[M, D]``, a copy.

        Raises:
            UserError: none were ever added, so that D is unknown.
        """
        if not self.pieces:
            raise UserError("NegativeCache.rows", "at least one negative", "none")
        return torch.cat(self.pieces)

    def wanted(self, scores: Tensor, keys: Tensor) -> Tensor:
        """Which of some negatives `add` would take, bool ``[N]``: rows need be made for no others.

        Args:
            scores: ``[N]``, by the present SVM; before the first one, anything above the rule's limit.
            keys: int64 ``[N]``.
        """
        if scores.shape != keys.shape or scores.ndim != 1:
            raise UserError("keys", f"one a score, {list(scores.shape)}", list(keys.shape))
        return (scores > self.rule.add_above) & ~torch.isin(keys, self.keys.to(keys.device))

    def add(self, rows: Tensor, scores: Tensor, keys: Tensor) -> NegativeCache:
        """The cache with those of ``rows [N, D]`` that are `wanted`.

        Raises:
            UserError: sizes that do not fit together.
        """
        if rows.ndim != 2 or len(rows) != len(scores):
            raise UserError("rows", f"a matrix [{len(scores)}, D], one line a score", list(rows.shape))
        take = self.wanted(scores, keys)
        if self.pieces and rows.shape[1] != self.pieces[0].shape[1]:
            raise UserError("rows", f"{self.pieces[0].shape[1]} columns, as before", rows.shape[1])
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
        return replace(full._keep(hardest), dropped=dropped)

    def evict(self, scores: Tensor) -> NegativeCache:
        """The cache after a fit: without the negatives that the new SVM is sure of.

        Args:
            scores: ``[M]``, of `rows` by the new SVM.
        """
        if scores.shape != self.keys.shape:
            raise UserError("scores", f"one a row, [{len(self)}]", list(scores.shape))
        kept = (scores >= self.rule.evict_below).nonzero()[:, 0]
        renewed = replace(self, scores=scores, fresh=0)
        return renewed if len(kept) == len(self) else renewed._keep(kept)

    def _keep(self, index: Tensor) -> NegativeCache:
        """Only the rows of rising numbers ``index``; a piece that stays whole is not copied."""
        pieces: list[Tensor] = []
        start = 0
        for piece in self.pieces:
            own = index[(index >= start) & (index < start + len(piece))] - start
            pieces.append(piece if len(own) == len(piece) else piece[own])
            start += len(piece)
        # Pieces that lost all rows go, but one stays to tell D.
        held = tuple(piece for piece in pieces if len(piece)) or (pieces[0],)
        return replace(self, pieces=held, scores=self.scores[index], keys=self.keys[index])

"""Where the bins of a pyramid lie: the one place that rounds.

Bin ``i`` of ``n`` on a side of ``size`` cells covers ``floor(i * size / n)`` up to, not including,
``ceil((i + 1) * size / n)`` (paper, appendix A): every bin holds at least one cell, neighbours may
share one, and the edges are those of ``torch.nn.AdaptiveMaxPool2d``.
"""

from __future__ import annotations

from collections.abc import Sequence

from sppnet.errors import UserError

LEVELS = (6, 3, 2, 1)
"""The paper's pyramid of 50 bins (section 4.1)."""


def bin_edges(size: int, level: int) -> list[tuple[int, int]]:
    """First cell and the one past the last, for each of the ``level`` bins of a side of ``size`` cells."""
    return [(i * size // level, -(-(i + 1) * size // level)) for i in range(level)]


def count_bins(levels: Sequence[int]) -> int:
    """Bins of the whole pyramid: the sum of the squared levels."""
    return sum(level * level for level in levels)


def check_levels(levels: Sequence[object]) -> list[int]:
    """The levels as a list.

    Raises:
        UserError: no level, or one that is not a whole number of at least 1.
    """
    sides = [n for n in levels if isinstance(n, int) and not isinstance(n, bool) and n >= 1]
    if not sides or len(sides) != len(levels):
        raise UserError(
            "levels", "one or more whole numbers of at least 1, such as (6, 3, 2, 1)", list(levels)
        )
    return sides


def check_mode(mode: str) -> None:
    """Do nothing for a known mode.

    Raises:
        UserError: neither ``"max"`` nor ``"mean"``.
    """
    if mode not in ("max", "mean"):
        raise UserError("mode", '"max" or "mean"', repr(mode))


def parents(levels: Sequence[int]) -> list[int]:
    """For each level the position of the level that it can be derived from, or its own position.

    When ``n`` divides ``m``, every edge of level ``n`` is an edge of level ``m``, so the maximum of a
    bin of ``n`` is the maximum of ``m / n`` times ``m / n`` bins of ``m``. The smallest such ``m`` is
    taken, the first of equals.
    """
    result: list[int] = []
    for own, n in enumerate(levels):
        larger = [(m, i) for i, m in enumerate(levels) if m > n and m % n == 0]
        result.append(min(larger)[1] if larger else own)
    return result

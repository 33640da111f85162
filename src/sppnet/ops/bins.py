"""Bin edges of a pyramid: the only place that rounds them.

Bin ``i`` of ``n`` on a side of ``size`` cells covers ``floor(i * size / n)`` up to, not including,
``ceil((i + 1) * size / n)`` (He et al. 2015, appendix A, pooling bins): every bin has at least one cell,
neighbours may share one, and the edges are those of ``torch.nn.AdaptiveMaxPool2d``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from sppnet.errors import UserError

LEVELS = (6, 3, 2, 1)
"""The pyramid of the paper with 50 bins (He et al. 2015, section 4.1)."""
Mode = Literal["max", "mean", "avg"]
_LARGEST = 1024
"""Maximum level, and square root of the maximum number of bins."""


def bin_edges(size: int, level: int) -> list[tuple[int, int]]:
    """Return the first cell and the one past the last of each bin of a side.

    Args:
        size: number of cells of the side.
        level: number of bins.

    Examples:
        >>> bin_edges(7, 3)
        [(0, 3), (2, 5), (4, 7)]
    """
    return [(i * size // level, -(-(i + 1) * size // level)) for i in range(level)]


def count_bins(levels: Sequence[int]) -> int:
    """Return the number of bins of a pyramid: the sum of the squared levels.

    Examples:
        >>> count_bins((6, 3, 2, 1))
        50
    """
    return sum(level * level for level in levels)


def check_levels(levels: object) -> list[int]:
    """Check the levels of a pyramid.

    Args:
        levels: a sequence of integers from 1 to 1,024.

    Returns:
        The levels as a list of ``int``.

    Raises:
        UserError: there is no level, one of another type or out of range, or more than 1,048,576 bins.

    Examples:
        >>> check_levels((6, 3, 2, 1))
        [6, 3, 2, 1]
    """
    if type(levels) is tuple or type(levels) is list:
        for n in levels:
            if type(n) is not int or not 1 <= n <= _LARGEST:
                break
        else:
            if levels:
                return _check_bins(list(levels))
    hint = ""
    if isinstance(levels, list | tuple | torch.Size) or (isinstance(levels, np.ndarray) and levels.ndim == 1):
        sides = [int(n) for n in levels if isinstance(n, int | np.integer) and not isinstance(n, bool)]
        if sides and len(sides) == len(levels) and min(sides) >= 1 and max(sides) <= _LARGEST:
            return _check_bins(sides)
    elif isinstance(levels, int) and not isinstance(levels, bool):
        hint = f"For one level of {levels} x {levels} bins write levels=({levels},)."
    raise UserError(
        "levels", f"a sequence of integers from 1 to {_LARGEST}, such as (6, 3, 2, 1)", levels, hint
    )


def _check_bins(levels: list[int]) -> list[int]:
    if count_bins(levels) > _LARGEST**2:
        raise UserError("levels", f"at most {_LARGEST**2} bins", count_bins(levels))
    return levels


def check_mode(mode: object) -> Mode:
    """Check the pooling mode.

    Returns:
        ``"max"`` or ``"mean"``, of which ``"avg"`` is a synonym.

    Raises:
        UserError: the mode is unknown.

    Examples:
        >>> check_mode("avg")
        'mean'
    """
    if isinstance(mode, str):
        if mode == "max":
            return "max"
        if mode in ("mean", "avg"):
            return "mean"
    raise UserError("mode", '"max", "mean" or "avg"', repr(mode))


def parents(levels: Sequence[int]) -> list[int]:
    """Return for each level the index of the level from which it can be derived, or its own index.

    If ``n`` divides ``m``, every edge of level ``n`` is an edge of level ``m``, so the maximum of a
    bin of ``n`` is the maximum of ``m / n`` times ``m / n`` bins of ``m``. The smallest such ``m`` is
    selected, the first of equal ones.

    Examples:
        >>> parents((6, 3, 2, 1))
        [0, 0, 0, 2]
    """
    result: list[int] = []
    for own, n in enumerate(levels):
        larger = [(m, i) for i, m in enumerate(levels) if m > n and m % n == 0]
        result.append(min(larger)[1] if larger else own)
    return result

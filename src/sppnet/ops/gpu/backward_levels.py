"""The launches of the backward kernels for a pyramid; see `sppnet.ops.gpu.backward`."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from sppnet.ops.bins import count_bins
from sppnet.ops.gpu.forward import LARGEST

_BINS = 16
"""Maximum number of bins whose maxima are searched together with those of derived bins."""


class Level(NamedTuple):
    """The levels whose gradients are added by one launch."""

    bins: int
    """Bins per side of the level."""
    before: int
    """Number of bins of the preceding levels."""
    rows: int
    """Number of rows of bins per step; 0 for bin by bin."""
    too: int
    """Bins per side of a derived level, each row of which is derived from the rows of a step; 0 for none."""
    before_too: int
    """Number of bins of the levels before the derived one."""


@cache
def launched_levels(levels: tuple[int, ...], mode: str) -> tuple[Level, ...]:
    """Plan the launches for a pyramid."""
    before = [count_bins(levels[:i]) for i in range(len(levels))]
    result: list[Level] = []
    left = sorted(range(len(levels)), key=lambda i: -levels[i])
    while left:
        i = left.pop(0)
        n = levels[i]
        if mode == "mean" or n > LARGEST:
            result.append(Level(n, before[i], 0, 0, 0))
            continue
        # More bins per step would require too many registers.
        fitting = [k for k in left if levels[k] < n and n % levels[k] == 0 and n // levels[k] * n <= _BINS]
        if fitting:
            k = fitting[0]
            left.remove(k)
            result.append(Level(n, before[i], n // levels[k], levels[k], before[k]))
        else:
            result.append(Level(n, before[i], 1, 0, 0))
    return tuple(result)

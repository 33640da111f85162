"""Options of a network's layers behind the convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sppnet.errors import UserError

_MOST_BINS = 100
_MOST_UNITS = 10**6


@dataclass(frozen=True)
class NetworkOptions:
    """What stands behind the convolutions, and what a network begins with.

    Attributes:
        pyramid: bins along each side of each level; none at all for the paper's networks without pyramid
            pooling: a last max pool to 6x6, which takes images of one size.
        hidden: numbers of units of the fully connected layers before the last.
        dropout: share of the units of each that are left out of a training step.
        start: ``paper``: Gaussians of deviation 0.01, for images of 0..255 less their mean; ``he``:
            deviations that keep the size of signals, for images of unit variance, with which a short
            training gets under way. Weights from a file or a library stay.
    """

    pyramid: tuple[int, ...] = (6, 3, 2, 1)
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5
    start: Literal["paper", "he"] = "paper"

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        if any(not 1 <= n <= _MOST_BINS for n in self.pyramid):
            raise UserError("network.pyramid", f"whole numbers, 1 to {_MOST_BINS}", self.pyramid)
        if any(not 1 <= n <= _MOST_UNITS for n in self.hidden):
            raise UserError("network.hidden", f"whole numbers, 1 to {_MOST_UNITS}", self.hidden)
        if not 0 <= self.dropout < 1:
            raise UserError("network.dropout", "a share, 0 to below 1", self.dropout)

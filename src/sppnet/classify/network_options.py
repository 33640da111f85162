"""Options of a network's layers behind the convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sppnet.errors import UserError

_MOST_BINS = 100
_MOST_UNITS = 10**6


@dataclass(frozen=True)
class NetworkOptions:
    """Pooling layer, fully connected layers and initial weights of a network.

    Attributes:
        pyramid: bins along each side of each level; if empty, a max pool to 6x6 as in the paper's networks
            without pyramid pooling, for images of one size.
        hidden: units of the fully connected layers before the last.
        dropout: dropout probability of these layers.
        start: initial weights. ``paper``: Gaussians of deviation 0.01, for images of 0..255 minus their mean.
            ``he``: deviations that preserve the variance of the activations, for images of unit variance, so
            that a short training converges. Weights from a file or a library are not changed.

    Examples:
        >>> NetworkOptions(pyramid=(), hidden=(64,)).dropout
        0.5
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

"""Options of the crops of R-CNN."""

from __future__ import annotations

from dataclasses import dataclass

from sppnet.errors import UserError


@dataclass(frozen=True)
class CropOptions:
    """How windows become the network's input.

    Attributes:
        side: pixels of a crop, height and width.
        padding: pixels of context on each side of the window within the crop.
        batch: crops that run through the network together.

    Raises:
        UserError: a value out of its range.
    """

    side: int = 227
    padding: int = 16
    batch: int = 256

    def __post_init__(self) -> None:
        if self.side < 1 or self.batch < 1:
            raise UserError("CropOptions", "side and batch of at least 1", f"{self.side} and {self.batch}")
        if not 0 <= 2 * self.padding < self.side:
            wanted = f"at least 0 and less than half the side, {self.side}"
            raise UserError("CropOptions.padding", wanted, self.padding)

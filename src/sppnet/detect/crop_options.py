"""Options of the crops of R-CNN."""

from __future__ import annotations

from dataclasses import dataclass

from sppnet.errors import UserError


@dataclass(frozen=True)
class CropOptions:
    """Options of cropping proposals for the network's input.

    Attributes:
        side: height and width of a crop in pixels.
        padding: pixels of context on each side of a proposal in its crop.
        batch: number of crops per batch.

    Raises:
        UserError: a value is out of range.
    """

    side: int = 227
    padding: int = 16
    batch: int = 256

    def __post_init__(self) -> None:
        if self.side < 1 or self.batch < 1:
            raise UserError("CropOptions", "side and batch of at least 1", f"{self.side} and {self.batch}")
        if not 0 <= 2 * self.padding < self.side:
            expected = f"at least 0 and less than half the side, {self.side}"
            raise UserError("CropOptions.padding", expected, self.padding)

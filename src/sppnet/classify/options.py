"""Options of `Classifier`."""

from __future__ import annotations

from dataclasses import dataclass

from sppnet.errors import UserError


@dataclass(frozen=True)
class ClassifierOptions:
    """Feature extraction and SVM of a `Classifier`.

    Attributes:
        layers: the layers that are pooled, by the network's names for them or as ``stride8`` and
            ``stride16``; the network's default when None.
        scales: short sides, in pixels, to which an image is resized before the network; 0 keeps its own
            size. The features of all scales are concatenated. None uses its own size only, in half the time.
        long_side: limit of the long side after resizing, in pixels.
        levels: bins along each side of each level of the pyramid.
        normalise: normalise each level of the pyramid to l2 norm 1, so that all levels have the same weight.
            The whole feature vector always has norm 1.
        flip: add the features of the flipped image.
        C: cost of a unit of loss of the SVMs, for features of norm 1.

    Examples:
        >>> ClassifierOptions(scales=None, C=1.0).levels
        (6, 3, 2, 1)
    """

    layers: tuple[str, ...] | None = None
    scales: tuple[int, ...] | None = (0, 192)
    long_side: int = 1333
    levels: tuple[int, ...] = (6, 3, 2, 1)
    normalise: bool = True
    flip: bool = False
    C: float = 10.0

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        sides = "None, or short sides of at least 16 pixels, or 0"
        if self.scales is not None and (not self.scales or any(s != 0 and s < 16 for s in self.scales)):
            raise UserError("options.scales", sides, self.scales)
        if self.layers is not None and not self.layers:
            raise UserError("options.layers", "at least one layer", self.layers)
        if self.long_side < 16:
            raise UserError("options.long_side", "at least 16 pixels", self.long_side)
        if not self.levels or min(self.levels) < 1:
            raise UserError("options.levels", "whole numbers of at least 1", self.levels)
        if not self.C > 0:
            raise UserError("options.C", "a number above 0", self.C)

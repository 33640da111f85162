"""What can be chosen about a detector, field by field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sppnet.errors import UserError


@dataclass(frozen=True)
class DetectorOptions:
    """How windows are made, pooled, scored and merged.

    Attributes:
        short_side: images are resized to this short side, in pixels, before the network; 0 keeps
            their own size.
        long_side: limit of the long side after resizing, in pixels.
        levels: bins along each side of each level of the pyramid that the SVMs see.
        proposals: a JSON or CSV file with boxes for every image, instead of dense windows.
        window_step: dense windows move by this share of their sides.
        windows: dense windows an image, at most.
        shapes: shapes of dense windows, at most.
        C: the SVMs' cost of a unit of loss, with rows scaled to a mean norm of 20.
        positive_weight: how many times more an error on a positive costs.
        mining_rounds: times that hard negatives are looked for.
        rows: training rows of the SVMs, at most; bounds the memory of fitting.
        ridge: penalty of the box regressors, with rows scaled to a mean norm of 20.
        iou_head: hidden units of the MLP that refines boxes and predicts their IoU; 0 disables it.
        flip_below: with fewer objects than this to learn from, images are also seen flipped left to
            right; 0 for objects that flipping makes into others, such as letters.
        regressions: times that a box is regressed; 0 leaves windows as they are.
        nms: of two detections of a class whose IoU is above this, the better one stays.
        vote: detections that overlap a kept one by at least this IoU pull its box; 1 turns it off.
        per_class: detections an image and class, at most.
        tile: images are cut into tiles of at most this side, in pixels, each treated as an image of its
            own, in fitting and prediction; 0 takes images whole.
        overlap: share of a tile that the next one repeats.
        cache_mb: memory for the training images' feature maps; what is over it lies on disk.
    """

    short_side: int = 480
    long_side: int = 1333
    levels: tuple[int, ...] = (3, 2, 1)
    proposals: Path | None = None
    window_step: float = 0.2
    windows: int = 8000
    shapes: int = 16
    C: float = 1e-3
    positive_weight: float = 2.0
    mining_rounds: int = 2
    rows: int = 30000
    ridge: float = 1000.0
    iou_head: int = 256
    flip_below: int = 1000
    regressions: int = 2
    nms: float = 0.4
    vote: float = 0.6
    per_class: int = 100
    tile: int = 0
    overlap: float = 0.2
    cache_mb: int = 1000

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        ranges = (
            ("short_side", self.short_side == 0 or self.short_side >= 16, "0, or at least 16 pixels"),
            ("long_side", self.long_side >= 16, "at least 16 pixels"),
            ("levels", bool(self.levels) and min(self.levels) >= 1, "whole numbers of at least 1"),
            ("window_step", 0 < self.window_step <= 2, "a share above 0, at most 2"),
            ("windows", self.windows >= 1, "at least 1"),
            ("shapes", self.shapes >= 1, "at least 1"),
            ("C", self.C > 0, "a number above 0"),
            ("positive_weight", self.positive_weight > 0, "a number above 0"),
            ("mining_rounds", self.mining_rounds >= 0, "at least 0"),
            ("rows", self.rows >= 100, "at least 100"),
            ("ridge", self.ridge > 0, "a number above 0"),
            ("iou_head", self.iou_head >= 0, "at least 0"),
            ("flip_below", self.flip_below >= 0, "at least 0"),
            ("regressions", self.regressions >= 0, "at least 0"),
            ("nms", 0 <= self.nms <= 1, "an IoU, 0 to 1"),
            ("vote", 0 < self.vote <= 1, "an IoU, above 0 and at most 1"),
            ("per_class", self.per_class >= 1, "at least 1"),
            ("tile", self.tile == 0 or self.tile >= 32, "0, or at least 32 pixels"),
            ("tile", self.tile == 0 or self.proposals is None, "0 with a file of proposals"),
            ("overlap", 0 <= self.overlap <= 0.9, "a share from 0 to 0.9"),
            ("cache_mb", self.cache_mb >= 0, "at least 0"),
        )
        for name, right, wanted in ranges:
            if not right:
                raise UserError(f"options.{name}", wanted, getattr(self, name))

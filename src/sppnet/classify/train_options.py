"""What can be chosen about training a network, field by field, and what follows epoch by epoch."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from sppnet.errors import UserError

_DROPS = 2

_RANGES: dict[str, tuple[float, float]] = {
    "short_side": (1, 10_000),
    "crop": (1, 10_000),
    "epochs": (1, 1_000_000),
    "batch": (1, 1_000_000),
    "patience": (1, 1_000_000),
    "colour": (0, 100),
    "momentum": (0, 1),
    "decay": (0, 1),
    "workers": (0, 1024),
    "checkpoint_steps": (0, 1_000_000_000),
}


@dataclass(frozen=True)
class TrainOptions:
    """The paper's recipe (paper section 1.3); batch, momentum and decay are Krizhevsky's.

    Attributes:
        short_side: of an image before it is cropped; 400 in the paper's pre-training for detection.
        crop: side of a crop, from the middle or a corner of the whole image.
        sizes: sides that the crop is resized to, one an epoch in turn, such as 224 180: training at several
            sizes with one set of weights. The crop's own when none is given.
        random_size: draw each epoch's size between the smallest and the largest of sizes.
        native: no crops: images keep their shape, the short side as short_side says; equal shapes share a
            batch as far as they can.
        objects: learn the objects of images with boxes, from random crops that keep at least half of
            one, instead of whole images.
        flip: flip every other image.
        colour: deviation of Krizhevsky's alteration along the colours' principal axes; 0 for none.
        epochs: passes over the images.
        batch: images a step, of all processes together.
        rate: learning rate of the weights; that of the biases is twice as high.
        momentum: of the gradient.
        decay: of the weights, not of the biases.
        drops: epochs after which the rate is divided by 10; twice at plateaus when none is given.
        patience: epochs without a new best that make a plateau.
        precision: what the network computes in: no (float32), bf16 or fp16.
        workers: processes that read images; with 0 they are read once and kept.
        checkpoint_steps: also keep a checkpoint every so many steps of an epoch; 0 for epochs only.
    """

    short_side: int = 256
    crop: int = 224
    sizes: tuple[int, ...] = ()
    random_size: bool = False
    native: bool = False
    objects: bool = False
    flip: bool = True
    colour: float = 0.1
    epochs: int = 70
    batch: int = 128
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 5e-4
    drops: tuple[int, ...] | None = None
    patience: int = 5
    precision: Literal["no", "bf16", "fp16"] = "no"
    workers: int = 0
    checkpoint_steps: int = 0

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise UserError(f"train.{name}", f"{least} to {most}", getattr(self, name))
        if not 0 < self.rate <= 1e6:
            raise UserError("train.rate", "a number above 0, at most 1e6", self.rate)
        if self.drops is not None and any(drop < 0 for drop in self.drops):
            raise UserError("train.drops", "numbers of epochs, at least 0", self.drops)
        if self.crop > self.short_side and not self.native:
            raise UserError("train.crop", f"at most the short side, {self.short_side}", self.crop)
        if self.sizes and not 1 <= min(self.sizes) <= max(self.sizes) <= _RANGES["crop"][1]:
            raise UserError("train.sizes", "sides of at least 1 pixel", self.sizes)
        if self.random_size and len(self.sizes) != 2:
            raise UserError(
                "train.sizes", "the smallest and the largest, for random_size", self.sizes or "none"
            )
        if self.native and (self.sizes or self.objects):
            raise UserError("train.native", "neither sizes nor objects with it", self.sizes or "objects")

    def check_for(self, any_size: bool) -> None:
        """Raise `UserError` for several sizes with a network that takes one (``any_size`` False)."""
        if not self.native and not any_size and len(set(self.sizes or (0,))) > 1:
            raise UserError("train.sizes", "one size for a network without pyramid pooling", self.sizes)

    def size(self, epoch: int, seed: int) -> int:
        """The side of the training images of an epoch, counted from 0."""
        if self.random_size:
            return random.Random(f"size {seed} {epoch}").randint(min(self.sizes), max(self.sizes))
        return self.sizes[epoch % len(self.sizes)] if self.sizes else self.crop


@dataclass(frozen=True)
class Plateau:
    """How often the learning rate has been divided, and what decides about the next time.

    Attributes:
        best: the lowest value so far.
        bad: epochs since then, or since the last division.
        drops: divisions so far.
    """

    best: float = float("inf")
    bad: int = 0
    drops: int = 0

    def after(self, value: float, epoch: int, options: TrainOptions) -> Plateau:
        """The state after an epoch (counted from 0) whose loss or error is ``value``."""
        best, bad = (value, 0) if value < self.best else (self.best, self.bad + 1)
        if options.drops is not None:
            return Plateau(best, bad, sum(epoch + 1 >= drop for drop in options.drops))
        if bad >= options.patience and self.drops < _DROPS:
            return Plateau(best, 0, self.drops + 1)
        return Plateau(best, bad, self.drops)

    def rate(self, options: TrainOptions) -> float:
        """The learning rate now."""
        return options.rate / 10**self.drops

"""Options of training a network, and the learning rate schedule."""

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
    """The training recipe (He et al. 2015, section 3.1); batch size, momentum and decay are those of AlexNet.

    Attributes:
        short_side: short side of an image before cropping; 400 in the pre-training for detection
            (section 4.5).
        crop: side of the crop, from the centre or a corner of the whole image.
        sizes: sides to which the crop is resized, one per epoch in turn, such as 224 180 (multi-size
            training, section 2.3); the side of the crop if empty.
        random_size: draw the size of each epoch between the smallest and the largest of sizes.
        native: do not crop; images keep their shape at short_side, and equal shapes share a batch as far as
            possible.
        objects: train on the objects of images with boxes, from random crops that contain at least half of
            an object, instead of whole images (section 4.5).
        flip: flip each image with probability 0.5.
        colour: standard deviation of the colour alteration along the principal axes of the colours
            (Krizhevsky et al. 2012); 0 for none.
        epochs: passes over the images.
        batch: images per step, over all processes.
        rate: learning rate of the weights; that of the biases is twice as high.
        momentum: momentum of the gradient.
        decay: weight decay; biases have none.
        drops: epochs after which the rate is divided by 10; if not given, it is divided twice, at plateaus.
        patience: epochs without improvement that count as a plateau.
        precision: number format of the network: no (float32), bf16 or fp16.
        workers: processes that read images; with 0 images are read once and cached in memory.
        checkpoint_steps: steps between checkpoints within an epoch; 0 for a checkpoint per epoch only.

    Examples:
        >>> options = TrainOptions(sizes=(224, 180))
        >>> [options.size(epoch, seed=0) for epoch in range(3)]
        [224, 180, 224]
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
                "train.sizes",
                "two sizes, the smallest and the largest, for random_size",
                self.sizes or "none",
            )
        if self.native and (self.sizes or self.objects):
            raise UserError("train.native", "neither sizes nor objects with native", self.sizes or "objects")

    def check_for(self, any_size: bool) -> None:
        """Raise `UserError` for several sizes with a network of a fixed size (``any_size`` is False)."""
        if not self.native and not any_size and len(set(self.sizes or (0,))) > 1:
            raise UserError("train.sizes", "one size for a network without pyramid pooling", self.sizes)

    def size(self, epoch: int, seed: int) -> int:
        """Return the side of the training images of an epoch, counted from 0."""
        if self.random_size:
            return random.Random(f"size {seed} {epoch}").randint(min(self.sizes), max(self.sizes))
        return self.sizes[epoch % len(self.sizes)] if self.sizes else self.crop


@dataclass(frozen=True)
class Plateau:
    """The state of the learning rate schedule.

    Attributes:
        best: the lowest loss or error so far.
        bad: epochs since the lowest value, or since the last division of the rate.
        drops: number of divisions so far.
    """

    best: float = float("inf")
    bad: int = 0
    drops: int = 0

    def after(self, value: float, epoch: int, options: TrainOptions) -> Plateau:
        """Return the state after an epoch (counted from 0) with a loss or error of ``value``."""
        best, bad = (value, 0) if value < self.best else (self.best, self.bad + 1)
        if options.drops is not None:
            return Plateau(best, bad, sum(epoch + 1 >= drop for drop in options.drops))
        if bad >= options.patience and self.drops < _DROPS:
            return Plateau(best, 0, self.drops + 1)
        return Plateau(best, bad, self.drops)

    def rate(self, options: TrainOptions) -> float:
        """Return the current learning rate."""
        return options.rate / 10**self.drops

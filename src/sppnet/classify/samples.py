"""Training images of an epoch, made from labelled images."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sppnet.classify.train_options import TrainOptions
from sppnet.data import image_size, read_image
from sppnet.errors import UserError
from sppnet.features import resize
from sppnet.progress import track
from sppnet.structures import ClassificationSet, DetectionSet, ImageSize

LONGEST_SHAPE = 16
"""Largest ratio of an image's sides that trained networks keep; longer images are squeezed to it."""
_TRIES = 50
_CHUNK = 16  # batches whose images are sorted by shape together
# Of ImageNet's colours, 0..1: principal axes (columns) and their deviations (Krizhevsky et al. 2012).
_AXES = torch.tensor(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], dtype=torch.float64
)
_DEVIATIONS = torch.tensor([0.2175, 0.0188, 0.0045], dtype=torch.float64)


@dataclass(frozen=True)
class Sample:
    """An image, or an object in one, and its class number.

    Attributes:
        path: the image.
        label: the class number.
        box: the object, ``(x0, y0, x1, y1)`` in pixels; None for the whole image.
    """

    path: Path
    label: int
    box: tuple[float, float, float, float] | None = None


def image_samples(dataset: ClassificationSet) -> list[Sample]:
    """Return one sample per image."""
    return [Sample(item.path, item.label) for item in dataset.items]


def object_samples(dataset: DetectionSet) -> list[Sample]:
    """Return one sample per object, without crowds.

    Raises:
        UserError: no object at all.
    """
    samples: list[Sample] = []
    for item in dataset.items:
        truth = item.truth
        for box, label, crowd in zip(
            truth.boxes.xyxy.tolist(), truth.labels.tolist(), truth.crowd.tolist(), strict=True
        ):
            if not crowd:
                samples.append(Sample(item.path, label, (box[0], box[1], box[2], box[3])))
    if not samples:
        raise UserError(dataset.root, "images with objects", "none")
    return samples


def bounded_shape(size: ImageSize) -> ImageSize:
    """Return a size whose long side is at most `LONGEST_SHAPE` times the short one.

    Trained networks resize images to a short side; without a bound a 1 x 10,000 image would become
    256 x 2,560,000. Longer images are squeezed to the bound, so that their content stays in view and memory
    stays below ``LONGEST_SHAPE * side ** 2`` pixels.

    Examples:
        >>> from sppnet.structures import ImageSize
        >>> bounded_shape(ImageSize(1, 10_000)), bounded_shape(ImageSize(30, 40))
        (ImageSize(height=1, width=16), ImageSize(height=30, width=40))
    """
    longest = LONGEST_SHAPE * size.short_side
    return ImageSize(min(size.height, longest), min(size.width, longest))


def short_side_size(size: ImageSize, side: int) -> ImageSize:
    """Return the size of an image whose short side becomes ``side``, of a `bounded_shape`; halves up."""
    size = bounded_shape(size)
    short = size.short_side
    height, width = ((2 * length * side + short) // (2 * short) for length in (size.height, size.width))
    return ImageSize(height, width)


class TrainImages(Dataset[tuple[Tensor, int]]):
    """The training images of one epoch; what is random in each depends on seed, epoch and sample alone.

    Args:
        samples: what there is to learn from.
        options: how images become training images.
        epoch: from 0.
        seed: of everything random.
        kept: images read before, by path, uint8 at ``short_side``; filled where not None.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        options: TrainOptions,
        epoch: int,
        seed: int,
        kept: dict[Path, Tensor] | None = None,
    ) -> None:
        self.samples = samples
        self.options = options
        self.epoch = epoch
        self.seed = seed
        self.kept = kept

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """float32 ``[3, s, s]``, RGB, 0..1 (of its own shape with ``native``), and its label."""
        sample, options = self.samples[index], self.options
        chance = random.Random(f"sample {self.seed} {self.epoch} {index}")
        whole = self._image(sample.path)
        if options.native:
            crop = whole
        else:
            top, left = self._place(sample, whole, chance)
            crop = whole[:, top : top + options.crop, left : left + options.crop]
        image = crop.float() / 255
        if options.flip and chance.random() < 0.5:
            image = image.flip(2)
        if not options.native:
            side = options.size(self.epoch, self.seed)
            image = resize(image[None], ImageSize(side, side), antialias=True)[0]
        if options.colour:
            image = alter_colour(image, [chance.gauss(0, options.colour) for _ in range(3)])
        return image.contiguous(), sample.label

    def _image(self, path: Path) -> Tensor:
        if self.kept is not None and path in self.kept:
            return self.kept[path]
        full = read_image(path)
        size = short_side_size(ImageSize(full.shape[1], full.shape[2]), self.options.short_side)
        resized = resize(full[None], size, antialias=True)[0]
        pixels = (resized.clamp(0, 1) * 255).round().to(torch.uint8)
        if self.kept is not None:
            self.kept[path] = pixels
        return pixels

    def _place(self, sample: Sample, whole: Tensor, chance: random.Random) -> tuple[int, int]:
        crop = self.options.crop
        down, right = whole.shape[1] - crop, whole.shape[2] - crop
        if sample.box is None:
            return chance.choice([(down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)])
        size = image_size(sample.path)
        factors = (whole.shape[2] / size.width, whole.shape[1] / size.height) * 2
        x0, y0, x1, y1 = (value * factor for value, factor in zip(sample.box, factors, strict=True))
        return object_crop((x0, y0, x1, y1), crop, (down, right), chance)


def object_crop(
    box: tuple[float, float, float, float], crop: int, room: tuple[int, int], chance: random.Random
) -> tuple[int, int]:
    """Return top and left of a random crop that keeps at least half of an object (section 4.5).

    Args:
        box: the object.
        crop: the crop's side.
        room: the largest top and left.
        chance: where chance comes from.

    Returns:
        a crop centred on the object as well as the image allows, where no crop was found: an object larger
        than two crops, say.
    """
    x0, y0, x1, y1 = box
    enough = 0.5 * (x1 - x0) * (y1 - y0)
    limits = [
        (max(0, int(low) - crop), min(most, int(high)))
        for low, high, most in ((y0, y1, room[0]), (x0, x1, room[1]))
    ]
    for _ in range(_TRIES):
        top, left = (chance.randint(min(low, high), high) for low, high in limits)
        kept = (min(x1, left + crop) - max(x0, left), min(y1, top + crop) - max(y0, top))
        if min(kept) > 0 and kept[0] * kept[1] >= enough:
            return top, left
    middle = ((y0 + y1 - crop) / 2, (x0 + x1 - crop) / 2)
    top, left = (min(max(round(m), 0), most) for m, most in zip(middle, room, strict=True))
    return top, left


def alter_colour(image: Tensor, amounts: Sequence[float]) -> Tensor:
    """Add to each principal axis of the colours its deviation times an amount (Krizhevsky et al. 2012)."""
    shift = _AXES @ (_DEVIATIONS * torch.tensor(amounts, dtype=torch.float64))
    return image + shift.to(image.dtype).view(3, 1, 1)


def native_shapes(samples: Sequence[Sample], options: TrainOptions) -> list[ImageSize] | None:
    """Return the shapes of the training images where they differ, from the images' headers."""
    if not options.native:
        return None
    return [short_side_size(image_size(s.path), options.short_side) for s in track(samples, "Shapes")]


def epoch_batches(
    count: int, shapes: Sequence[ImageSize] | None, batch: int, epoch: int, seed: int
) -> list[list[int]]:
    """Return indices of the samples in the batches of an epoch, in a new order every epoch.

    Where there are several shapes, the images of some batches together are sorted by shape before they
    are divided, and the batches shuffled again: few shapes share a batch, and none is always with the same
    others.

    Args:
        count: samples.
        shapes: theirs, or None where all are alike.
        batch: samples a batch, at most.
        epoch: from 0.
        seed: of the order.
    """
    chance = random.Random(f"order {seed} {epoch}")
    order = list(range(count))
    chance.shuffle(order)
    if shapes is None:
        return [order[i : i + batch] for i in range(0, count, batch)]
    chunk = _CHUNK * batch
    batches: list[list[int]] = []
    for start in range(0, count, chunk):
        part = sorted(order[start : start + chunk], key=shapes.__getitem__)
        batches += [part[i : i + batch] for i in range(0, len(part), batch)]
    chance.shuffle(batches)
    return batches


def collate(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor | list[Tensor], Tensor]:
    """Return one tensor if all images have one shape and a list otherwise, and the labels."""
    images = [image for image, _ in samples]
    labels = torch.tensor([label for _, label in samples])
    alike = all(image.shape == images[0].shape for image in images)
    return torch.stack(images) if alike else images, labels

"""The training images of an epoch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sppnet.classify.train_options import TrainOptions
from sppnet.data import image_size, read_scaled
from sppnet.errors import UserError
from sppnet.features import resize
from sppnet.progress import track
from sppnet.structures import ClassificationSet, DetectionSet, ImageSize

LONGEST_SHAPE = 16
"""Largest aspect ratio of an input of trained networks; longer images are squeezed to it."""
_TRIES = 50  # random crops before the crop is centred on the object
_CHUNK = 16  # batches whose samples are sorted by shape together
# Principal axes (columns) of the colours of ImageNet in 0..1, and the standard deviations along them
# (Krizhevsky et al. 2012).
_AXES = torch.tensor(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], dtype=torch.float64
)
_DEVIATIONS = torch.tensor([0.2175, 0.0188, 0.0045], dtype=torch.float64)


@dataclass(frozen=True)
class Sample:
    """A training sample: an image or an object in it, and its class number.

    Attributes:
        path: the image.
        label: the class number.
        box: the box of the object, ``(x0, y0, x1, y1)`` in pixels; None for the whole image.
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
        UserError: there is no object.
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
    256 x 2,560,000. Longer images are squeezed to the bound, so that their content is cache and memory stays
    below ``LONGEST_SHAPE * side ** 2`` pixels.

    Examples:
        >>> from sppnet.structures import ImageSize
        >>> bounded_shape(ImageSize(1, 10_000)), bounded_shape(ImageSize(30, 40))
        (ImageSize(height=1, width=16), ImageSize(height=30, width=40))
    """
    longest = LONGEST_SHAPE * size.short_side
    return ImageSize(min(size.height, longest), min(size.width, longest))


def short_side_size(size: ImageSize, side: int) -> ImageSize:
    """Return the size of an image resized to a short side, with a `bounded_shape`; halves are rounded up."""
    size = bounded_shape(size)
    short = size.short_side
    height, width = ((2 * length * side + short) // (2 * short) for length in (size.height, size.width))
    return ImageSize(height, width)


class TrainImages(Dataset[tuple[Tensor, int]]):
    """The training images of one epoch; random numbers depend on seed, epoch and sample only.

    Args:
        samples: the training samples.
        options: cropping, resizing and augmentation.
        epoch: the epoch, counted from 0.
        seed: seed of the augmentation.
        cache: images by path, uint8 at ``short_side``, which is filled with the images that are read; None
            caches nothing.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        options: TrainOptions,
        epoch: int,
        seed: int,
        cache: dict[Path, Tensor] | None = None,
    ) -> None:
        self.samples = samples
        self.options = options
        self.epoch = epoch
        self.seed = seed
        self.cache = cache

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image, float32 ``[3, H, W]``, RGB, 0..1, and its label; square unless ``native``."""
        sample, options = self.samples[index], self.options
        rng = random.Random(f"sample {self.seed} {self.epoch} {index}")
        full = self._image(sample.path)
        if options.native:
            crop = full
        else:
            top, left = self._crop_corner(sample, full, rng)
            crop = full[:, top : top + options.crop, left : left + options.crop]
        image = crop.float() / 255
        if options.flip and rng.random() < 0.5:
            image = image.flip(2)
        if not options.native:
            side = options.size(self.epoch, self.seed)
            image = resize(image[None], ImageSize(side, side), antialias=True)[0]
        if options.colour:
            image = alter_colour(image, [rng.gauss(0, options.colour) for _ in range(3)])
        return image.contiguous(), sample.label

    def _image(self, path: Path) -> Tensor:
        if self.cache is not None and path in self.cache:
            return self.cache[path]
        image = read_scaled(path, lambda size: short_side_size(size, self.options.short_side))
        size = short_side_size(image.size, self.options.short_side)
        resized = resize(image.values[None], size, antialias=True)[0]
        pixels = (resized.clamp(0, 1) * 255).round().to(torch.uint8)
        if self.cache is not None:
            self.cache[path] = pixels
        return pixels

    def _crop_corner(self, sample: Sample, full: Tensor, rng: random.Random) -> tuple[int, int]:
        crop = self.options.crop
        down, right = full.shape[1] - crop, full.shape[2] - crop
        if sample.box is None:
            return rng.choice([(down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)])
        size = image_size(sample.path)
        factors = (full.shape[2] / size.width, full.shape[1] / size.height) * 2
        x0, y0, x1, y1 = (value * factor for value, factor in zip(sample.box, factors, strict=True))
        return object_crop((x0, y0, x1, y1), crop, (down, right), rng)


def object_crop(
    box: tuple[float, float, float, float], crop: int, limit: tuple[int, int], rng: random.Random
) -> tuple[int, int]:
    """Return top and left of a random crop that keeps at least half of an object (section 4.5).

    Args:
        box: the object.
        crop: the crop's side.
        limit: the largest top and left.
        rng: the random number generator.

    Returns:
        Top and left. If no crop contains half of the object, because the object is larger than two crops,
        the crop is centred on the object as far as the image allows.
    """
    x0, y0, x1, y1 = box
    least = 0.5 * (x1 - x0) * (y1 - y0)
    limits = [
        (max(0, int(low) - crop), min(most, int(high)))
        for low, high, most in ((y0, y1, limit[0]), (x0, x1, limit[1]))
    ]
    for _ in range(_TRIES):
        top, left = (rng.randint(min(low, high), high) for low, high in limits)
        overlap = (min(x1, left + crop) - max(x0, left), min(y1, top + crop) - max(y0, top))
        if min(overlap) > 0 and overlap[0] * overlap[1] >= least:
            return top, left
    middle = ((y0 + y1 - crop) / 2, (x0 + x1 - crop) / 2)
    top, left = (min(max(round(m), 0), most) for m, most in zip(middle, limit, strict=True))
    return top, left


def alter_colour(image: Tensor, amounts: Sequence[float]) -> Tensor:
    """Shift the colours along each principal axis by an amount in standard deviations (section 3.1).

    Args:
        image: ``[3, H, W]``, RGB, 0..1.
        amounts: the shifts along the three axes (Krizhevsky et al. 2012).
    """
    shift = _AXES @ (_DEVIATIONS * torch.tensor(amounts, dtype=torch.float64))
    return image + shift.to(image.dtype).view(3, 1, 1)


def native_shapes(samples: Sequence[Sample], options: TrainOptions) -> list[ImageSize] | None:
    """Return the shapes of the training images with ``native``, from the headers of the images; else None."""
    if not options.native:
        return None
    return [
        short_side_size(image_size(s.path), options.short_side) for s in track(samples, "Reading image sizes")
    ]


def epoch_batches(
    count: int, shapes: Sequence[ImageSize] | None, batch: int, epoch: int, seed: int
) -> list[list[int]]:
    """Divide the samples of an epoch into batches, in a new order every epoch.

    If the shapes differ, the samples of every 16 batches are sorted by shape before they are divided, and the
    batches are shuffled again. A batch then has few shapes, and its composition changes from epoch to epoch.

    Args:
        count: number of samples.
        shapes: the shape of each sample, or None if all shapes are equal.
        batch: largest number of samples per batch.
        epoch: the epoch, counted from 0.
        seed: seed of the order.

    Returns:
        Indices of the samples of each batch.
    """
    rng = random.Random(f"order {seed} {epoch}")
    order = list(range(count))
    rng.shuffle(order)
    if shapes is None:
        return [order[i : i + batch] for i in range(0, count, batch)]
    chunk = _CHUNK * batch
    batches: list[list[int]] = []
    for start in range(0, count, chunk):
        group = sorted(order[start : start + chunk], key=shapes.__getitem__)
        batches += [group[i : i + batch] for i in range(0, len(group), batch)]
    rng.shuffle(batches)
    return batches


def collate(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor | list[Tensor], Tensor]:
    """Return the images, as a tensor if all shapes are equal and as a list otherwise, and the labels."""
    images = [image for image, _ in samples]
    labels = torch.tensor([label for _, label in samples])
    equal = all(image.shape == images[0].shape for image in images)
    return torch.stack(images) if equal else images, labels

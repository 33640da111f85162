"""Random crops of a folder of images, to train the builtin network.

Shapes: `B` batch, `H` and `W` height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sppnet.backbones.builtin import BuiltinNet
from sppnet.data import find_images, read_pixels
from sppnet.errors import UserError
from sppnet.progress import track

SIDES = (96, 128, 160, 192, 224, 256)
UNKNOWN = -1


@dataclass(frozen=True)
class TrainingImages:
    """Training images in memory.

    Attributes:
        pixels: uint8 ``[3, H, W]`` of each image.
        labels: class number of each image; `UNKNOWN` for images outside class folders.
        names: class names.
    """

    pixels: tuple[Tensor, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]


def list_images(root: Path, exclude: tuple[str, ...] = ()) -> list[Path]:
    """List the training images of a folder, sorted.

    Images in folders named ``test`` and images of VOC folders that are not in the train list are skipped.

    Args:
        root: a folder.
        exclude: glob patterns, relative to ``root``, of further images to skip.

    Returns:
        The paths.

    Raises:
        UserError: the folder does not exist or has no training images.
    """
    if not root.is_dir():
        raise UserError(root, "a folder of images", "no such folder")
    lists = root.rglob("ImageSets/Main/train.txt")
    train_lists = {path.parents[2]: set(path.read_text().split()) for path in lists}

    def included(path: Path) -> bool:
        relative = path.relative_to(root)
        held_out = any(voc in path.parents and path.stem not in names for voc, names in train_lists.items())
        excluded = any(fnmatch(str(relative), pattern) for pattern in exclude)
        return not (held_out or "test" in relative.parts or excluded)

    paths = [path for path in find_images([root]) if included(path)]
    if not paths:
        raise UserError(root, "training images", "no images other than held-out and excluded ones")
    return paths


def class_name(path: Path, root: Path) -> str | None:
    """Return the class of an image in ``.../train/CLASS/file`` or ``root/CLASS/file``; otherwise None."""
    folders = path.relative_to(root).parts[:-1]
    if len(folders) > 1 and folders[-2] == "train":
        return folders[-1]
    return folders[0] if len(folders) == 1 else None


def read_images(root: Path, exclude: tuple[str, ...] = ()) -> TrainingImages:
    """Read the images that `list_images` lists and their classes.

    Raises:
        UserError: there are no images, or an image is corrupt.
    """
    paths = list_images(root, exclude)
    classes = [class_name(path, root) for path in paths]
    names = tuple(sorted({name for name in classes if name is not None}))
    labels = tuple(UNKNOWN if name is None else names.index(name) for name in classes)
    # Transposing makes a writable copy; arrays of the reader may be read-only.
    pixels = (np.ascontiguousarray(read_pixels(p).transpose(2, 0, 1)) for p in track(paths, "Reading images"))
    return TrainingImages(tuple(torch.from_numpy(array) for array in pixels), labels, names)


def _uniform(count: int, generator: torch.Generator) -> list[float]:
    return torch.rand(count, generator=generator).tolist()


def _crop(image: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Crop at a random position, scale (about 0.5 to 1.75) and aspect, and resize to height x width.

    Half of the crops are flipped left to right, and 15 percent upside down.
    """
    log_scale, log_aspect, top, left, flip, upside_down = _uniform(6, generator)
    scale = math.exp(math.log(0.5) + log_scale * math.log(3.5))
    aspect = math.exp((log_aspect - 0.5) * 0.4)
    scale = max(scale, height / image.shape[1], width / image.shape[2])
    rows = min(image.shape[1], max(8, round(height / scale * aspect)))
    columns = min(image.shape[2], max(8, round(width / scale / aspect)))
    row, column = round(top * (image.shape[1] - rows)), round(left * (image.shape[2] - columns))
    crop = image[None, :, row : row + rows, column : column + columns].float() / 255
    crop = F.interpolate(crop, (height, width), mode="bilinear", antialias=True)[0]
    if flip < 0.5:
        crop = crop.flip(2)
    return crop.flip(1) if upside_down < 0.15 else crop


def make_batch(
    images: TrainingImages, count: int, generator: torch.Generator, *, single_size: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw random crops of random images, all resized to one random size.

    The size changes from batch to batch, as in multi-size training (He et al. 2015, section 2.3). Images
    are drawn in proportion to the square root of their area. Colours are shifted. In half of the batches,
    each crop is blended with another one, which augments small data sets.

    Args:
        images: the images.
        count: number of crops of 128x128; batches of larger crops are smaller.
        generator: random generator.
        single_size: use 128x128 only.

    Returns:
        The batch, float32 ``[B, 3, H, W]``, normalised, with sides that are multiples of 32, and the labels,
        int64 ``[B]``; blended crops have the label of the crop of higher weight.
    """
    sides = [128, 128]
    if not single_size:
        sides = [SIDES[int(i)] for i in torch.randint(len(SIDES), (2,), generator=generator)]
    count = max(2, round(count * 128 * 128 / (sides[0] * sides[1])))
    weights = torch.tensor([math.sqrt(p.shape[1] * p.shape[2]) for p in images.pixels])
    picks = torch.multinomial(weights, count, replacement=True, generator=generator).tolist()
    batch = torch.stack([_crop(images.pixels[i], sides[0], sides[1], generator) for i in picks])
    gain = torch.rand(count, 3, 1, 1, generator=generator) * 0.3 + 0.85
    contrast = torch.rand(count, 1, 1, 1, generator=generator) * 0.6 + 0.7
    brightness = batch.mean((1, 2, 3), keepdim=True)
    batch = ((batch - brightness) * contrast + brightness * gain).clamp(0, 1)
    if _uniform(1, generator)[0] < 0.5:
        weight = torch.rand(count, 1, 1, 1, generator=generator) * 0.5 + 0.5
        batch = weight * batch + (1 - weight) * batch.roll(1, 0)
    mean, std = torch.tensor(BuiltinNet.MEAN), torch.tensor(BuiltinNet.STD)
    batch = (batch - mean[:, None, None]) / std[:, None, None]
    return batch, torch.tensor([images.labels[i] for i in picks])

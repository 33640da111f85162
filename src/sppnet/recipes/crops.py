"""Random crops of a folder of images: what the builtin network is trained on."""

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

SIDES = (96, 112, 128, 144, 160, 176, 192)
UNKNOWN = -1


@dataclass(frozen=True)
class TrainingImages:
    """Images in memory.

    Attributes:
        pixels: uint8 ``[3, H, W]`` each.
        labels: a class number each, `UNKNOWN` where the folders tell none.
        names: the classes.
    """

    pixels: tuple[Tensor, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]


def list_images(root: Path, exclude: tuple[str, ...] = ()) -> list[Path]:
    """The images under a folder that may be trained on, sorted.

    What lies under a folder named ``test`` is left out, and so are the images of a VOC folder that are
    not in its train list.

    Args:
        root: a folder.
        exclude: globs relative to ``root`` of more images to leave out.

    Raises:
        UserError: no folder, or no image is left.
    """
    if not root.is_dir():
        raise UserError(root, "a folder of images", "no such folder")
    lists = root.rglob("ImageSets/Main/train.txt")
    trained = {path.parents[2]: set(path.read_text().split()) for path in lists}

    def wanted(path: Path) -> bool:
        inner = path.relative_to(root)
        held_out = any(voc in path.parents and path.stem not in names for voc, names in trained.items())
        return not (held_out or "test" in inner.parts or any(fnmatch(str(inner), glob) for glob in exclude))

    found = [path for path in find_images([root]) if wanted(path)]
    if not found:
        raise UserError(root, "images to train on", "held-out and excluded ones only")
    return found


def class_name(path: Path, root: Path) -> str | None:
    """The class of an image, where its folders tell it: ``.../train/CLASS/file`` or ``root/CLASS/file``."""
    folders = path.relative_to(root).parts[:-1]
    if len(folders) > 1 and folders[-2] == "train":
        return folders[-1]
    return folders[0] if len(folders) == 1 else None


def read_images(root: Path, exclude: tuple[str, ...] = ()) -> TrainingImages:
    """Read every image that `list_images` finds, with its class.

    Raises:
        UserError: no images, or a corrupt one.
    """
    paths = list_images(root, exclude)
    classes = [class_name(path, root) for path in paths]
    names = tuple(sorted({name for name in classes if name is not None}))
    labels = tuple(UNKNOWN if name is None else names.index(name) for name in classes)
    # Transposing copies, so that torch may own what the reader may have made read-only.
    pixels = (np.ascontiguousarray(read_pixels(p).transpose(2, 0, 1)) for p in track(paths, "images"))
    return TrainingImages(tuple(torch.from_numpy(array) for array in pixels), labels, names)


def _uniform(count: int, generator: torch.Generator) -> list[float]:
    return torch.rand(count, generator=generator).tolist()


def _crop(image: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A crop at a random place, scale (about 0.5 to 1.75) and aspect, resized to height x width."""
    log_scale, log_aspect, top, left, flip, turn = _uniform(6, generator)
    scale = math.exp(math.log(0.5) + log_scale * math.log(3.5))
    aspect = math.exp((log_aspect - 0.5) * 0.4)
    scale = max(scale, height / image.shape[1], width / image.shape[2])
    rows = min(image.shape[1], max(8, round(height / scale * aspect)))
    columns = min(image.shape[2], max(8, round(width / scale / aspect)))
    row, column = round(top * (image.shape[1] - rows)), round(left * (image.shape[2] - columns))
    part = image[None, :, row : row + rows, column : column + columns].float() / 255
    part = F.interpolate(part, (height, width), mode="bilinear", antialias=True)[0]
    if flip < 0.5:
        part = part.flip(2)
    return part.flip(1) if turn < 0.15 else part


def make_batch(
    images: TrainingImages, count: int, generator: torch.Generator, *, single_size: bool = False
) -> tuple[Tensor, Tensor]:
    """Random crops of random images, all of one random size (paper section 2.3).

    Larger images are drawn more often, as the square root of their area. Colours are shifted, and half
    of the batches are mixed with themselves, which makes new images out of few.

    Args:
        images: what to cut from.
        count: crops of 128x128; larger crops come in smaller batches.
        generator: of everything random.
        single_size: 128x128 always.

    Returns:
        batch: float32 ``[B, 3, H, W]``, normalised, H and W multiples of 16.
        labels: int64 ``[B]``; of a mixed image, that of its larger share.
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
    middle = batch.mean((1, 2, 3), keepdim=True)
    batch = ((batch - middle) * contrast + middle * gain).clamp(0, 1)
    if _uniform(1, generator)[0] < 0.5:
        share = torch.rand(count, 1, 1, 1, generator=generator) * 0.5 + 0.5
        batch = share * batch + (1 - share) * batch.roll(1, 0)
    mean, std = torch.tensor(BuiltinNet.MEAN), torch.tensor(BuiltinNet.STD)
    batch = (batch - mean[:, None, None]) / std[:, None, None]
    return batch, torch.tensor([images.labels[i] for i in picks])

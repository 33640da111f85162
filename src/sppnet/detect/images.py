"""Source, size and digest of an image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sppnet.data import ImageSource, image_size, read_image, read_pixels, read_scaled
from sppnet.features.keys import file_key
from sppnet.structures import ImageSize


@dataclass(frozen=True)
class Image:
    """An image that is read on demand.

    Attributes:
        source: a source for `sppnet.data.read_image`.
        size: size after EXIF rotation.
        key: digest of the content of the file; ``""`` for an image in memory, whose stages are not cached.
        flipped: whether the image is flipped left to right.
    """

    source: ImageSource
    size: ImageSize
    key: str
    flipped: bool = False

    @property
    def path(self) -> Path | None:
        """Path of the file; None for an image in memory."""
        return Path(self.source) if isinstance(self.source, (str, os.PathLike)) else None

    def read(self) -> Tensor:
        """Read the image, float32 ``[3, H, W]``, RGB, 0..1."""
        return self._oriented(read_image(self.source))

    def read_plain(self) -> Tensor:
        """Read the image without flipping it."""
        return read_image(self.source)

    def read_for(self, largest: ImageSize) -> Tensor:
        """Read the image; large images are reduced by averaging to at least twice the size ``largest``."""
        return self._oriented(read_scaled(self.source, lambda _: largest).values)

    def _oriented(self, pixels: Tensor) -> Tensor:
        return pixels.flip(2) if self.flipped else pixels


def image_of(source: ImageSource, *, keyed: bool = True) -> Image:
    """Create an image from a path or from memory.

    Args:
        source: a source for `sppnet.data.read_image`.
        keyed: compute the digest of the file, which is required to cache stages.

    Raises:
        UserError: the file cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return Image(path, image_size(path), file_key(path) if keyed else "")
    height, width = read_pixels(source).shape[:2]
    return Image(source, ImageSize(height, width), "")

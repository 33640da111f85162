"""An image as the stages see it: where it is, how large, and a digest of its content."""

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
    """One image.

    Attributes:
        source: what `sppnet.data.read_image` reads.
        size: after EXIF rotation.
        key: a digest of the file's content; ``""`` for an image in memory, of which nothing is cached.
        flipped: seen flipped left to right.
    """

    source: ImageSource
    size: ImageSize
    key: str
    flipped: bool = False

    @property
    def path(self) -> Path | None:
        """Of its file, where it has one."""
        return Path(self.source) if isinstance(self.source, (str, os.PathLike)) else None

    def read(self) -> Tensor:
        """float32 ``[3, H, W]``, RGB, 0..1."""
        return self._turned(read_image(self.source))

    def read_plain(self) -> Tensor:
        """As `read`, never flipped."""
        return read_image(self.source)

    def read_for(self, largest: ImageSize) -> Tensor:
        """As `read`; a very large image is averaged down to at least twice the size ``largest``."""
        return self._turned(read_scaled(self.source, lambda _: largest).values)

    def _turned(self, pixels: Tensor) -> Tensor:
        return pixels.flip(2) if self.flipped else pixels


def image_of(source: ImageSource, *, keyed: bool = True) -> Image:
    """Return an image from a path or from memory.

    Args:
        source: what `sppnet.data.read_image` reads.
        keyed: read the file for its digest; without it, nothing of the image is cached.

    Raises:
        UserError: a file that cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return Image(path, image_size(path), file_key(path) if keyed else "")
    height, width = read_pixels(source).shape[:2]
    return Image(source, ImageSize(height, width), "")

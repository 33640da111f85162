"""An image as the stages see it: where it is, how large, and a digest of its content."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sppnet.data import ImageSource, image_size, read_image, read_scaled
from sppnet.detect.paper.stages import file_key
from sppnet.structures import ImageSize


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        source: what `sppnet.data.read_image` reads.
        size: after EXIF rotation.
        key: a digest of the file's content; ``""`` for an image in memory, which nothing is kept of.
    """

    source: ImageSource
    size: ImageSize
    key: str

    @property
    def path(self) -> Path | None:
        """Of its file, where it has one."""
        return Path(self.source) if isinstance(self.source, (str, os.PathLike)) else None

    def read(self) -> Tensor:
        """float32 ``[3, H, W]``, RGB, 0..1."""
        return read_image(self.source)

    def read_for(self, largest: ImageSize) -> Tensor:
        """As `read`; a very large image is averaged down to at least twice the size ``largest``."""
        return read_scaled(self.source, lambda _: largest).values


def image_of(source: ImageSource) -> Image:
    """An image from a path or from memory.

    Raises:
        UserError: a file that cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return Image(path, image_size(path), file_key(path))
    image = read_image(source)
    return Image(source, ImageSize(image.shape[1], image.shape[2]), "")

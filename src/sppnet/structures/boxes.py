"""Sizes of images and boxes on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.errors import UserError


@dataclass(frozen=True, order=True)
class ImageSize:
    """Height and width of an image in pixels; both at least 1."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UserError("ImageSize", "height and width of at least 1", f"{self.height} x {self.width}")

    @property
    def short_side(self) -> int:
        """min(height, width): the side that the paper's scale ``s`` speaks of."""
        return min(self.height, self.width)

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width


@dataclass(frozen=True)
class Boxes:
    """Boxes on one image.

    Attributes:
        xyxy: float32 ``[N, 4]``, ``(x0, y0, x1, y1)`` in pixels of the image, continuous edges: the
            pixel in row i, column j covers ``(j, i, j + 1, i + 1)``, so a width is ``x1 - x0``.
        size: the image that they lie on.

    Raises:
        UserError: another shape, a NaN or infinite coordinate, or ``x1 < x0`` or ``y1 < y0``; it names
            the first offending box.
    """

    xyxy: Tensor
    size: ImageSize

    def __post_init__(self) -> None:
        given = self.xyxy
        if given.ndim != 2 or given.shape[1] != 4:
            raise UserError("Boxes.xyxy", "a tensor [N, 4]", f"shape {list(given.shape)}")
        if given.dtype != torch.float32:
            object.__setattr__(self, "xyxy", given.to(torch.float32))
        bad = ~torch.isfinite(self.xyxy).all(1) | (self.xyxy[:, 2:] < self.xyxy[:, :2]).any(1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0, 0])
            raise UserError(
                f"Boxes.xyxy[{first}]",
                "finite x0 <= x1 and y0 <= y1",
                [round(v, 3) for v in given[first].tolist()],
            )

    def __len__(self) -> int:
        return self.xyxy.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Boxes:
        """The boxes that a mask, an index tensor or a slice picks."""
        return Boxes(self.xyxy[index], self.size)

    @property
    def areas(self) -> Tensor:
        """float32 ``[N]``, square pixels."""
        sides = self.xyxy[:, 2:] - self.xyxy[:, :2]
        return sides[:, 0] * sides[:, 1]

    def clip(self) -> Boxes:
        """The parts of the boxes that lie inside the image."""
        limit = self.xyxy.new_tensor([self.size.width, self.size.height] * 2)
        return Boxes(torch.minimum(self.xyxy.clamp(min=0), limit), self.size)

    def flipped(self) -> Boxes:
        """The same boxes on the image flipped left to right."""
        x0, y0, x1, y1 = self.xyxy.unbind(1)
        width = self.size.width
        return Boxes(torch.stack([width - x1, y0, width - x0, y1], 1), self.size)

    @staticmethod
    def empty(size: ImageSize) -> Boxes:
        """No boxes on an image of ``size``."""
        return Boxes(torch.zeros(0, 4), size)

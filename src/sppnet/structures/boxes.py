"""Image sizes and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.errors import UserError


@dataclass(frozen=True, order=True)
class ImageSize:
    """Height and width of an image in pixels.

    Attributes:
        height: at least 1.
        width: at least 1.

    Raises:
        UserError: ``height`` or ``width`` is below 1.

    Examples:
        >>> ImageSize(480, 640).short_side
        480
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UserError("ImageSize", "height and width of at least 1", f"{self.height} x {self.width}")

    @property
    def short_side(self) -> int:
        """The shorter side, which image scales ``s`` refer to (He et al. 2015, section 4.1)."""
        return min(self.height, self.width)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width


@dataclass(frozen=True)
class Boxes:
    """Boxes on one image.

    Attributes:
        xyxy: float32 ``[N, 4]``, ``(x0, y0, x1, y1)`` in image pixels with continuous edges: the pixel in
            row i, column j covers ``(j, i, j + 1, i + 1)``, so the width of a box is ``x1 - x0``.
        size: size of the image.

    Raises:
        UserError: ``xyxy`` has another shape, a coordinate is not finite, or ``x1 < x0`` or ``y1 < y0``.
            It names the first invalid box.

    Examples:
        >>> import torch
        >>> boxes = Boxes(torch.tensor([[10.0, 20, 30, 60]]), ImageSize(100, 100))
        >>> boxes.areas
        tensor([800.])
        >>> boxes.flipped().xyxy
        tensor([[70., 20., 90., 60.]])
    """

    xyxy: Tensor
    size: ImageSize

    def __post_init__(self) -> None:
        given = self.xyxy
        if given.ndim != 2 or given.shape[1] != 4:
            raise UserError("Boxes.xyxy", "a tensor [N, 4]", f"shape {list(given.shape)}")
        if given.dtype != torch.float32:
            object.__setattr__(self, "xyxy", given.to(torch.float32))
        if not len(given):
            return
        # One pass over valid boxes, of which there are thousands per image; NaN fails both comparisons.
        low, high = torch.aminmax(self.xyxy[:, 2:] - self.xyxy[:, :2])
        if low >= 0 and high < torch.inf:
            return
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
        """Select boxes by a mask, an index tensor or a slice."""
        return Boxes(self.xyxy[index], self.size)

    @property
    def areas(self) -> Tensor:
        """Areas in square pixels, float32 ``[N]``."""
        sides = self.xyxy[:, 2:] - self.xyxy[:, :2]
        return sides[:, 0] * sides[:, 1]

    def clip(self) -> Boxes:
        """Clip the boxes to the image."""
        limit = self.xyxy.new_tensor([self.size.width, self.size.height] * 2)
        return Boxes(torch.minimum(self.xyxy.clamp(min=0), limit), self.size)

    def flipped(self) -> Boxes:
        """Return the boxes on the flipped image."""
        x0, y0, x1, y1 = self.xyxy.unbind(1)
        width = self.size.width
        return Boxes(torch.stack([width - x1, y0, width - x0, y1], 1), self.size)

    @staticmethod
    def empty(size: ImageSize) -> Boxes:
        """Create zero boxes on an image of ``size``."""
        return Boxes(torch.zeros(0, 4), size)

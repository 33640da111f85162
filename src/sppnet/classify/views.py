"""Views of an image at test time, by crops and on the feature maps (section 3.1.5).

A view is a square window. By crops, every view passes the convolutional layers. On the maps, the
convolutional layers run once per scale, and once more on the flipped image; the cells of each view are found
and pooled by the code that pools proposals in detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sppnet.classify.network import PyramidNetwork
from sppnet.classify.samples import bounded_shape
from sppnet.errors import UserError
from sppnet.features import extract, image_rows, pool_rows, resize, resized_size
from sppnet.structures import Boxes, ImageSize

How = Literal["crops", "maps"]

SCALES = (224, 256, 300, 360, 448, 560)
"""The six scales of the paper's 96 views, for views of 224 pixels."""

_LARGEST_INPUT = 32_000_000
"""Pixels of the network's input; a strip of 2 x 10,000 pixels would need more."""


@dataclass(frozen=True)
class ViewOptions:
    """Views of an image whose probabilities are averaged.

    Attributes:
        scales: short sides that the image is resized to.
        side: of a view, in pixels of the resized image.
        positions: ``none``; ``centre``: 1; ``five``: centre and corners; ``nine``: also the middles of the
            sides. Where a side of the image is no longer than the view, positions along it are one: three
            of nine are left, as in the paper's six views at scale 224.
        flip: also the same views of the flipped image.
        full: short side at which the full image is one more view; None for no such view. It is always
            pooled from the whole map, and needs a network with pyramid pooling.
        how: by ``crops`` or on the ``maps``.
    """

    scales: tuple[int, ...] = (256,)
    side: int = 224
    positions: Literal["none", "centre", "five", "nine"] = "five"
    flip: bool = True
    full: int | None = None
    how: How = "crops"

    def check(self) -> None:
        """Raise `UserError` for the first value out of its range."""
        if self.side < 1:
            raise UserError("views.side", "at least 1 pixel", self.side)
        if self.positions == "none" and self.full is None:
            raise UserError("views", "positions, the full image or both", "neither")
        if self.positions != "none" and (not self.scales or min(self.scales) < self.side):
            raise UserError("views.scales", f"short sides of at least the view's {self.side}", self.scales)


def paper_96(side: int = 224, how: How = "maps", *, full: bool = True) -> ViewOptions:
    """Return the paper's 96 views: six scales of nine views, flipped too, and two of the full image.

    Args:
        side: of a view; the scales keep their ratio to it.
        how: by crops or on the maps.
        full: the two full-image views, whose scale the paper does not give; it is taken as the second.
    """
    scales = tuple((2 * scale * side + 224) // 448 for scale in SCALES)
    return ViewOptions(scales, side, "nine", full=scales[1] if full else None, how=how)


def view_boxes(size: ImageSize, options: ViewOptions) -> Boxes:
    """Return the windows of the views on a resized image.

    Args:
        size: of the resized image, at least the view's side.
        options: side and positions.

    Returns:
        ``[V, 4]`` with whole numbers; the centre first.
    """
    down, right = size.height - options.side, size.width - options.side
    rows, columns = ([room // 2] if room == 0 else [room // 2, 0, room] for room in (down, right))
    middle = (down // 2, right // 2)
    match options.positions:
        case "none":
            places: list[tuple[int, int]] = []
        case "centre":
            places = [middle]
        case "five":
            places = [middle, *((top, left) for top in (0, down) for left in (0, right))]
        case "nine":
            places = [(top, left) for top in rows for left in columns]
    side = options.side
    corners = [[left, top, left + side, top + side] for top, left in places]
    return Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4), size)


def view_probabilities(network: PyramidNetwork, image: Tensor, options: ViewOptions) -> Tensor:
    """Return the mean probabilities over the views of an image.

    Images longer than `sppnet.classify.samples.LONGEST_SHAPE` allows are squeezed to it.

    Args:
        network: in evaluation mode.
        image: float32 ``[3, H, W]``, RGB, 0..1.
        options: the views.

    Returns:
        float32 ``[K]`` on the CPU.

    Raises:
        UserError: views that the network cannot take.
    """
    options.check()
    if not network.any_size and (options.full is not None or options.how == "maps"):
        raise UserError("views", "views by crops, for a network without pyramid pooling", options.how)
    # Not inference mode: the network may be in training, and tensors that it keeps must stay usable there.
    with torch.no_grad():
        found: list[Tensor] = []
        if options.positions != "none":
            for scale in options.scales:
                found.append(_scale_scores(network, image, scale, options))
        if options.full is not None:
            found.append(_full_scores(network, image, options.full, flip=options.flip))
        return torch.cat(found).float().softmax(1).mean(0).cpu()


def _scale_scores(network: PyramidNetwork, image: Tensor, scale: int, options: ViewOptions) -> Tensor:
    """Return logits ``[V, K]`` of the views at one scale, those of the flipped image last."""
    resized = _resized(network, image, scale)
    boxes = view_boxes(ImageSize(resized.shape[1], resized.shape[2]), options)
    sides = [resized, resized.flip(2)] if options.flip else [resized]
    if options.how == "crops":
        crops = [
            one[:, top:bottom, left:right] for one in sides for left, top, right, bottom in _corners(boxes)
        ]
        return network(torch.stack(crops))
    rows = [pool_rows(extract(network.backbone, one), boxes, _levels(network)) for one in sides]
    return network.head(torch.cat(rows).to(_head_type(network)))


def _full_scores(network: PyramidNetwork, image: Tensor, scale: int, *, flip: bool) -> Tensor:
    resized = _resized(network, image, scale)
    sides = [resized, resized.flip(2)] if flip else [resized]
    rows = [image_rows(extract(network.backbone, one), _levels(network)) for one in sides]
    return network.head(torch.cat(rows).to(_head_type(network)))


def _resized(network: PyramidNetwork, image: Tensor, scale: int) -> Tensor:
    given = ImageSize(image.shape[1], image.shape[2])
    size = resized_size(bounded_shape(given), scale, network.backbone)
    if size.area > _LARGEST_INPUT:
        got = f"{given.height} x {given.width}, which would be resized to {size.height} x {size.width}"
        raise UserError("image", f"an input of at most {_LARGEST_INPUT:,} pixels", got, "Cut it into parts.")
    # Shrinking averages, as it does in training.
    return resize(image[None].to(network.backbone.device), size, antialias=True)[0]


def _corners(boxes: Boxes) -> Sequence[tuple[int, int, int, int]]:
    return [(int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in boxes.xyxy.tolist()]


def _levels(network: PyramidNetwork) -> tuple[int, ...]:
    return network.options.pyramid


def _head_type(network: PyramidNetwork) -> torch.dtype:
    return next(network.head.parameters()).dtype

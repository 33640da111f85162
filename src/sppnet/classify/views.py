"""Multi-view testing, by crops and on the feature maps (He et al. 2015, section 3.1.5).

A view is a square window. By crops, the convolutional layers run on every view. On the maps, they run once
per scale and once on the flipped image, and each view is pooled like a proposal in detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sppnet.classify.network import PyramidNetwork
from sppnet.classify.samples import bounded_shape
from sppnet.classify.train_options import TrainOptions
from sppnet.data import ImageSource, read_scaled
from sppnet.errors import UserError
from sppnet.features import extract, image_rows, pool_rows, resize, resized_size
from sppnet.structures import Boxes, ImageSize

How = Literal["crops", "maps"]

SCALES = (224, 256, 300, 360, 448, 560)
"""The six scales of the 96 views of section 3.1.5, for views of 224 pixels."""

_LARGEST_INPUT = 32_000_000
"""Largest number of pixels of the network's input."""


@dataclass(frozen=True)
class ViewOptions:
    """Views of an image whose probabilities are averaged.

    Attributes:
        scales: short sides to which the image is resized.
        side: side of a view, in pixels of the resized image.
        positions: ``none``, ``centre``, ``five`` (centre and corners) or ``nine`` (also the middles of the
            sides). Equal positions count once: if the short side of the image equals the view, three of nine
            remain, as at scale 224 in section 3.1.5.
        flip: add the views of the flipped image.
        full: short side at which the full image is an additional view; None for no such view. It needs a
            network with pyramid pooling.
        how: by ``crops`` or on the ``maps``.

    Examples:
        >>> ViewOptions((256, 300), positions="nine").side
        224
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
    """Return the 96 views of section 3.1.5 and two views of the full image.

    There are nine views at five scales and three at scale 224, each also flipped.

    Args:
        side: side of a view; the ratio of the scales to it is constant.
        how: by crops or on the maps.
        full: add the two full-image views. The paper does not state their scale; the second one is used.
    """
    scales = tuple((2 * scale * side + 224) // 448 for scale in SCALES)
    return ViewOptions(scales, side, "nine", full=scales[1] if full else None, how=how)


def default_views(network: PyramidNetwork, options: TrainOptions, seed: int) -> ViewOptions:
    """Return the full image at the short side of training or, without pyramid pooling, the centre crop."""
    if network.any_size:
        return ViewOptions(positions="none", flip=False, full=options.short_side)
    side = options.size(0, seed)
    return ViewOptions((-(-options.short_side * side // options.crop),), side, "centre", flip=False)


def view_boxes(size: ImageSize, options: ViewOptions) -> Boxes:
    """Return the windows of the views on a resized image.

    Args:
        size: size of the resized image, at least the side of the view.
        options: side and positions.

    Returns:
        V boxes with integer coordinates, the centre first.
    """
    down, right = size.height - options.side, size.width - options.side
    tops, lefts = ([limit // 2] if limit == 0 else [limit // 2, 0, limit] for limit in (down, right))
    centre = (down // 2, right // 2)
    match options.positions:
        case "none":
            corners: list[tuple[int, int]] = []
        case "centre":
            corners = [centre]
        case "five":
            corners = [centre, *((top, left) for top in (0, down) for left in (0, right))]
        case "nine":
            corners = [(top, left) for top in tops for left in lefts]
    side = options.side
    xyxy = [[left, top, left + side, top + side] for top, left in corners]
    return Boxes(torch.tensor(xyxy, dtype=torch.float32).reshape(-1, 4), size)


def view_probabilities(network: PyramidNetwork, image: Tensor, options: ViewOptions) -> Tensor:
    """Return the mean probabilities over the views of an image.

    Images longer than `sppnet.classify.samples.LONGEST_SHAPE` allows are squeezed to it.

    Args:
        network: the network, in evaluation mode.
        image: float32 ``[3, H, W]``, RGB, 0..1.
        options: the views.

    Returns:
        float32 ``[K]`` on the CPU.

    Raises:
        UserError: the views are invalid for the network.
    """
    options.check()
    if not network.any_size and (options.full is not None or options.how == "maps"):
        raise UserError(
            "views",
            "views by crops only, for a network without pyramid pooling",
            options.how,
        )
    # Not inference mode: the network may be in training, where tensors of inference mode cannot be used.
    with torch.no_grad():
        logits: list[Tensor] = []
        if options.positions != "none":
            for scale in options.scales:
                logits.append(_scale_scores(network, image, scale, options))
        if options.full is not None:
            logits.append(_full_scores(network, image, options.full, flip=options.flip))
        return torch.cat(logits).float().softmax(1).mean(0).cpu()


def read_for_views(source: ImageSource, network: PyramidNetwork, options: ViewOptions) -> Tensor:
    """Read an image for `view_probabilities`: float32 ``[3, H, W]``; a large one is reduced.

    Raises:
        UserError: the image cannot be read.
    """
    scales = (*(options.scales if options.positions != "none" else ()), options.full or 1)
    return read_scaled(source, lambda size: resized_size(size, max(scales), network.backbone)).values


def _scale_scores(network: PyramidNetwork, image: Tensor, scale: int, options: ViewOptions) -> Tensor:
    """Return logits ``[V, K]`` of the views at one scale, those of the flipped image last."""
    resized = _resized(network, image, scale)
    boxes = view_boxes(ImageSize(resized.shape[1], resized.shape[2]), options)
    versions = [resized, resized.flip(2)] if options.flip else [resized]
    if options.how == "crops":
        crops = [
            one[:, top:bottom, left:right] for one in versions for left, top, right, bottom in _corners(boxes)
        ]
        return network(torch.stack(crops))
    features = [pool_rows(extract(network.backbone, one), boxes, _levels(network)) for one in versions]
    return network.head(torch.cat(features).to(_head_type(network)))


def _full_scores(network: PyramidNetwork, image: Tensor, scale: int, *, flip: bool) -> Tensor:
    resized = _resized(network, image, scale)
    versions = [resized, resized.flip(2)] if flip else [resized]
    features = [image_rows(extract(network.backbone, one), _levels(network)) for one in versions]
    return network.head(torch.cat(features).to(_head_type(network)))


def _resized(network: PyramidNetwork, image: Tensor, scale: int) -> Tensor:
    original = ImageSize(image.shape[1], image.shape[2])
    size = resized_size(bounded_shape(original), scale, network.backbone)
    if size.area > _LARGEST_INPUT:
        got = f"{original.height} x {original.width}, which would be resized to {size.height} x {size.width}"
        raise UserError("image", f"an input of at most {_LARGEST_INPUT:,} pixels", got, "Divide the image.")
    # Antialiased, as in training.
    return resize(image[None].to(network.backbone.device), size, antialias=True)[0]


def _corners(boxes: Boxes) -> Sequence[tuple[int, int, int, int]]:
    return [(int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in boxes.xyxy.tolist()]


def _levels(network: PyramidNetwork) -> tuple[int, ...]:
    return network.options.pyramid


def _head_type(network: PyramidNetwork) -> torch.dtype:
    return next(network.head.parameters()).dtype

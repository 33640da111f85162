"""The backbone: a network that computes feature maps with known grids from images of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sppnet.errors import UserError
from sppnet.structures import Grid, ImageSize


@dataclass(frozen=True)
class LayerInfo:
    """Description of an output map of a backbone.

    Attributes:
        name: name of the layer in the network, such as ``"features.10"``.
        channels: number of channels.
        grid: positions of the cells on the network's input.

    Examples:
        >>> LayerInfo("features.10", 512, Grid(stride=16.0, first=8.0)).channels
        512
    """

    name: str
    channels: int
    grid: Grid


class Backbone(nn.Module):
    """A convolutional network without its classifier, for RGB images of any size.

    Args:
        name: the name given to `load_backbone`, such as ``"torchvision:squeezenet1_0"``.
        trunk: module that computes maps ``[B, C, h, w]``, a tuple of one per layer, from normalised images
            ``[B, 3, H, W]``.
        layers: descriptions of the maps, in the order of the trunk's outputs.
        minimum: the smallest input for which every map has at least one cell.
        mean: mean of red, green and blue (0..1), which is subtracted.
        std: standard deviation of red, green and blue, by which they are divided.
        multiple: required divisor of the sides of an input; above 1 only for networks whose padding depends
            on the size of the input.

    Examples:
        >>> from sppnet.backbones import load_backbone
        >>> [tuple(maps.shape) for maps in load_backbone("builtin")(torch.zeros(1, 3, 64, 96))]
        [(1, 48, 8, 12), (1, 120, 4, 6), (1, 352, 2, 3)]
    """

    def __init__(
        self,
        name: str,
        trunk: nn.Module,
        layers: tuple[LayerInfo, ...],
        minimum: ImageSize,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.name = name
        self.trunk = trunk
        self.layers = layers
        self.minimum = minimum
        self.multiple = multiple
        # Not persistent, because they are part of the description and not of the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of a batch of images.

        Args:
            images: ``[B, 3, H, W]``, RGB, 0..1, at least of size ``minimum``, with sides divisible by
                ``multiple``.

        Returns:
            One map ``[B, C, h, w]`` per layer, in the dtype of the trunk.

        Raises:
            UserError: the images have another shape, or sides that the network does not support.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError("images", "a tensor [B, 3, H, W]", f"shape {list(images.shape)}")
        if images.shape[2] < self.minimum.height or images.shape[3] < self.minimum.width:
            expected = f"images of at least {self.minimum.height} x {self.minimum.width} for {self.name}"
            raise UserError("images", expected, f"{images.shape[2]} x {images.shape[3]}")
        if images.shape[2] % self.multiple or images.shape[3] % self.multiple:
            expected = f"images with sides divisible by {self.multiple} for {self.name}"
            raise UserError("images", expected, f"{images.shape[2]} x {images.shape[3]}")
        normalised = (images - self.mean) / self.std
        return tuple(self.trunk(normalised.to(self.precision)))

    @property
    def precision(self) -> torch.dtype:
        """The dtype of the trunk."""
        return next(self.trunk.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the trunk."""
        return next(self.trunk.parameters()).device

    def spec(self) -> dict[str, Any]:
        """Describe the backbone as a JSON mapping, for `backbone_from_spec`.

        The description includes the measured grids, so that loading a run does not measure them. It does not
        include the weights, which are in ``state_dict``.
        """
        return {
            "name": self.name,
            "layers": [
                {"name": i.name, "channels": i.channels, "stride": i.grid.stride, "first": i.grid.first}
                for i in self.layers
            ],
            "minimum": [self.minimum.height, self.minimum.width],
            "multiple": self.multiple,
            "mean": [float(f"{v:.7g}") for v in self.mean.flatten().tolist()],
            "std": [float(f"{v:.7g}") for v in self.std.flatten().tolist()],
        }

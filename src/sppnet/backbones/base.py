"""What every backbone is: a network that turns images of any size into maps with known grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sppnet.errors import UserError
from sppnet.structures import Grid, ImageSize


@dataclass(frozen=True)
class LayerInfo:
    """One map that a backbone gives.

    Attributes:
        name: the layer's name inside the network, such as ``"features.10"``.
        channels: channels of the map.
        grid: where the map's cells lie on the network's input.
    """

    name: str
    channels: int
    grid: Grid


class Backbone(nn.Module):
    """A convolutional network without its classifier, for RGB images of any size.

    Args:
        name: what was asked for, such as ``"torchvision:squeezenet1_0"``.
        trunk: normalised ``[B, 3, H, W]`` to a tuple of maps ``[B, C, h, w]``, one a layer.
        layers: what the maps are, in the order in which the trunk gives them.
        minimum: the smallest input that gives every layer at least one cell.
        mean: what is subtracted from red, green and blue (0..1).
        std: what they are divided by afterwards.
        multiple: the grids hold for inputs whose sides are multiples of it; above 1 only for networks
            whose padding depends on the input's size.
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
        # They are part of the description, not of the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of a batch of images of one size.

        Args:
            images: ``[B, 3, H, W]``, RGB, 0..1, at least ``minimum`` high and wide.

        Returns:
            One map ``[B, C, h, w]`` a layer, in the trunk's precision.

        Raises:
            UserError: another shape, or images smaller than ``minimum``.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError("images", "a tensor [B, 3, H, W]", f"shape {list(images.shape)}")
        if images.shape[2] < self.minimum.height or images.shape[3] < self.minimum.width:
            least = f"images of at least {self.minimum.height} x {self.minimum.width} for {self.name}"
            raise UserError("images", least, f"{images.shape[2]} x {images.shape[3]}")
        normalised = (images - self.mean) / self.std
        return tuple(self.trunk(normalised.to(self.precision)))

    @property
    def precision(self) -> torch.dtype:
        """The floating type that the trunk computes in."""
        return next(self.trunk.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the trunk's weights lie."""
        return next(self.trunk.parameters()).device

    def spec(self) -> dict[str, Any]:
        """A description that JSON can hold and ``backbone_from_spec`` rebuilds the network from.

        It holds the measured grids, so that nothing is measured when a run is loaded. Weights are no
        part of it: they travel as ``state_dict``.
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

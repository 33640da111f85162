"""Feature maps with the grid of their cells."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sppnet.errors import UserError
from sppnet.structures.boxes import ImageSize


@dataclass(frozen=True)
class Grid:
    """Stride and offset of the cells of a feature map on the network input.

    The centre of cell i, from 0, is at ``first + i * stride`` input pixels along both axes. Coordinates
    are continuous: the centre of the first input pixel is 0.5.

    Attributes:
        stride: distance between the centres of neighbouring cells, above 0.
        first: centre of the first cell; negative if the network has much padding.

    Raises:
        UserError: ``stride`` is not above 0.

    Examples:
        >>> grid = Grid(stride=16.0, first=8.0)
        >>> grid.first + 2 * grid.stride
        40.0
    """

    stride: float
    first: float

    def __post_init__(self) -> None:
        if not self.stride > 0:
            raise UserError("Grid.stride", "a stride above 0", self.stride)


@dataclass(frozen=True)
class FeatureMap:
    """One feature map of one image.

    Attributes:
        values: ``[C, H, W]``, any floating dtype and strides.
        layer: the name of the layer.
        grid: the grid of its cells on the network input.
        resized: the size of the network input, which is the resized image.
        image: the size of the image, to which box coordinates refer.

    Raises:
        UserError: ``values`` is not three-dimensional or is empty.

    Examples:
        >>> import torch
        >>> values = torch.zeros(256, 15, 20)
        >>> fmap = FeatureMap(values, "conv5", Grid(16.0, 8.0), ImageSize(240, 320), ImageSize(480, 640))
        >>> fmap.scale
        (0.5, 0.5)
    """

    values: Tensor
    layer: str
    grid: Grid
    resized: ImageSize
    image: ImageSize

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or 0 in self.values.shape:
            got = f"shape {list(self.values.shape)}"
            raise UserError("FeatureMap.values", "a tensor [C, H, W] with sides of at least 1", got)

    @property
    def scale(self) -> tuple[float, float]:
        """Vertical and horizontal factor from image pixels to input pixels."""
        return self.resized.height / self.image.height, self.resized.width / self.image.width


@dataclass(frozen=True)
class FeatureMaps:
    """The feature maps of one image, of all scales and layers.

    Attributes:
        maps: at least one map, all of the same image, ordered by ascending scale, then by layer.

    Raises:
        UserError: there is no map, or the maps belong to different image sizes.

    Examples:
        >>> import torch
        >>> size = ImageSize(240, 320)
        >>> fmap = FeatureMap(torch.zeros(256, 15, 20), "conv5", Grid(16.0, 8.0), size, size)
        >>> FeatureMaps((fmap,)).layers
        ('conv5',)
    """

    maps: tuple[FeatureMap, ...]

    def __post_init__(self) -> None:
        if not self.maps:
            raise UserError("FeatureMaps.maps", "at least one map", "none")
        if len({m.image for m in self.maps}) > 1:
            got = f"sizes {sorted({(m.image.height, m.image.width) for m in self.maps})}"
            raise UserError("FeatureMaps.maps", "maps of one image size", got)

    @property
    def image(self) -> ImageSize:
        """The size of the image."""
        return self.maps[0].image

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in the order in which their feature vectors are concatenated."""
        return tuple(dict.fromkeys(m.layer for m in self.maps))

    def of_layer(self, layer: str) -> tuple[FeatureMap, ...]:
        """Select the maps of one layer, one per scale."""
        return tuple(m for m in self.maps if m.layer == layer)

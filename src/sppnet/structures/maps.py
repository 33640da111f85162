"""Feature maps that know where their cells lie on the image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sppnet.errors import UserError
from sppnet.structures.boxes import ImageSize


@dataclass(frozen=True)
class Grid:
    """Where the cells of a map lie on the network's input.

    Cell i (from 0, in either axis) has its centre at ``first + i * stride`` pixels of the network's
    input, in continuous coordinates: the centre of the input's first pixel is 0.5.

    Attributes:
        stride: pixels from one cell's centre to the next.
        first: the centre of the first cell; may be negative for generously padded networks.
    """

    stride: float
    first: float

    def __post_init__(self) -> None:
        if not self.stride > 0:
            raise UserError("Grid.stride", "a stride above 0", self.stride)


@dataclass(frozen=True)
class FeatureMap:
    """One map of one image.

    Attributes:
        values: ``[C, h, w]``, any floating dtype and strides.
        layer: the name of the layer that made it.
        grid: where its cells lie on the network's input.
        resized: the size of the network's input: the image after resizing.
        image: the size of the image itself; box coordinates refer to it.
    """

    values: Tensor
    layer: str
    grid: Grid
    resized: ImageSize
    image: ImageSize

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or 0 in self.values.shape:
            got = list(self.values.shape)
            raise UserError("FeatureMap.values", "a tensor [C, h, w], none of them 0", got)

    @property
    def scale(self) -> tuple[float, float]:
        """Vertical and horizontal factor from image pixels to pixels of the network's input."""
        return self.resized.height / self.image.height, self.resized.width / self.image.width


@dataclass(frozen=True)
class FeatureMaps:
    """All maps of one image: every scale, and every layer of a scale.

    Attributes:
        maps: at least one map, all of the same image; scale by scale, ascending, and within a scale
            layer by layer.
    """

    maps: tuple[FeatureMap, ...]

    def __post_init__(self) -> None:
        if not self.maps:
            raise UserError("FeatureMaps.maps", "at least one map", "none")
        if len({m.image for m in self.maps}) > 1:
            raise UserError("FeatureMaps.maps", "maps of one image", sorted({m.image for m in self.maps}))

    @property
    def image(self) -> ImageSize:
        """The size of the image."""
        return self.maps[0].image

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in the order in which their vectors are joined."""
        return tuple(dict.fromkeys(m.layer for m in self.maps))

    def of_layer(self, layer: str) -> tuple[FeatureMap, ...]:
        """The maps of one layer, one a scale."""
        return tuple(m for m in self.maps if m.layer == layer)

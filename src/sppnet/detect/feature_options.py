"""Options of the stages up to the features of proposals: maps, pooling and proposals; see `stage_options`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sppnet.detect.ranges import AT_LEAST_0, AT_LEAST_1, Range, check_ranges
from sppnet.errors import UserError


@dataclass(frozen=True)
class MapOptions:
    """Options of feature maps (He et al. 2015, sections 2.2 and 4.1).

    Attributes:
        layers: names of the pooled layers in the network, or strides such as ``stride8`` and ``stride16``;
            None for the default of the network.
        mean_pixel: constant subtracted from all channels of an image in 0..255, instead of the mean of the
            network; 128 in the paper for VOC 2007 and Caltech101 (appendix A).
        short_side: short side in pixels to which images are resized; 0 for the size of the image.
        scales: several short sides instead of ``short_side``; 480, 576, 688, 864 and 1200 in the paper.
        long_side: maximum long side after resizing, in pixels; 0 for no limit.
        largest: maximum number of pixels of a resized image if ``long_side`` is 0; larger images are an
            error, because a smaller scale would change the results.
        rounded: round maps to bfloat16 in prediction too, like those of the training images.
        tile: maximum side of the tiles of an image in pixels; each tile is processed as an image, in fitting
            and prediction. 0 for no tiles.
        overlap: overlap of neighbouring tiles as a fraction of their side.

    Examples:
        >>> MapOptions(scales=(688, 480)).sides
        (480, 688)
    """

    layers: tuple[str, ...] | None = None
    mean_pixel: float | None = None
    short_side: int = 480
    scales: tuple[int, ...] = ()
    long_side: int = 1333
    largest: int = 16_000_000
    rounded: bool = False
    tile: int = 0
    overlap: float = 0.2

    @property
    def sides(self) -> tuple[int, ...] | None:
        """The short sides to which images are resized, ascending; None for the size of the image."""
        if self.scales:
            return tuple(sorted(set(self.scales)))
        return (self.short_side,) if self.short_side else None

    def check(self) -> None:
        """Raise `UserError` for the first value that is out of range."""
        check_ranges(self, MAP_RANGES)


MAP_RANGES: Mapping[str, Range] = {
    "layers": (lambda value: value is None or len(value) > 0, "at least one layer"),
    "mean_pixel": (lambda value: value is None or 0 <= value <= 255, "a pixel value, 0 to 255"),
    "short_side": (lambda value: value == 0 or value >= 16, "0, or at least 16 pixels"),
    "scales": (lambda value: min(value, default=16) >= 16, "sides of at least 16"),
    "long_side": (lambda value: value == 0 or value >= 16, "0, or at least 16 pixels"),
    "tile": (lambda value: value == 0 or value >= 32, "0, or at least 32 pixels"),
    "overlap": (lambda value: 0 <= value <= 0.9, "a fraction from 0 to 0.9"),
    "largest": (lambda value: value >= 256, "at least 256 pixels"),
}


@dataclass(frozen=True)
class PoolOptions:
    """Options of pooling proposals (He et al. 2015, sections 2.2 and 4.1, appendix A).

    Attributes:
        pipeline: ``"spp"``: convolve the image, then pool proposals; ``"rcnn"``: crop proposals, then
            convolve each.
        levels: bins along each side of each level of the pyramid.
        cells: rule for the cells of a proposal: ``"centre"`` for cells whose centres are inside, or the rule
            of the ``"paper"`` (appendix A) or of its ``"release"``, which also chooses the scale.
        release_offset: pixels of the network's input by which proposals shrink on each side (release).
        crop_side: height and width of a crop in pixels (R-CNN).
        crop_padding: pixels of context on each side of a proposal in its crop (R-CNN).
        crop_batch: number of crops per batch (R-CNN).
        cache_mb: maximum memory of cached maps and features; others are on disk.

    Examples:
        >>> PoolOptions(levels=(6, 3, 2, 1)).cells
        'centre'
    """

    pipeline: Literal["spp", "rcnn"] = "spp"
    levels: tuple[int, ...] = (3, 2, 1)
    cells: Literal["centre", "paper", "release"] = "centre"
    release_offset: float = 6.5
    crop_side: int = 227
    crop_padding: int = 16
    crop_batch: int = 256
    cache_mb: int = 1000

    def check(self) -> None:
        """Raise `UserError` for the first value that is out of range."""
        check_ranges(self, POOL_RANGES)
        if not 0 <= 2 * self.crop_padding < self.crop_side:
            expected = f"at least 0 and less than half the side, {self.crop_side}"
            raise UserError("options.crop_padding", expected, self.crop_padding)


POOL_RANGES: Mapping[str, Range] = {
    "levels": (lambda value: min(value, default=0) >= 1, "whole numbers of at least 1"),
    "crop_side": AT_LEAST_1,
    "crop_batch": AT_LEAST_1,
    "cache_mb": AT_LEAST_0,
}


@dataclass(frozen=True)
class WindowOptions:
    """Options of proposals (He et al. 2015, section 4.1).

    Attributes:
        source: ``"dense"``, ``"selective-search"`` or ``"edge-boxes"``.
        proposals: a file of boxes (.json, .csv, .mat, .parquet) instead of ``source``.
        edge_model: the structured edge model for EdgeBoxes of OpenCV, a .yml or .yml.gz file.
        windows: maximum number of proposals per image: the first ones, or every n-th of unranked ones.
        window_step: stride of dense windows as a fraction of their sides.
        shapes: maximum number of shapes of dense windows.

    Examples:
        >>> WindowOptions(source="selective-search", windows=2000).windows
        2000
    """

    source: Literal["dense", "selective-search", "edge-boxes"] = "dense"
    proposals: Path | None = None
    edge_model: Path | None = None
    windows: int = 8000
    window_step: float = 0.2
    shapes: int = 16

    def check(self) -> None:
        """Raise `UserError` for the first value that is out of range, or a missing file."""
        check_ranges(self, WINDOW_RANGES)
        if self.source == "edge-boxes" and not (self.edge_model or self.proposals):
            expected = "the structured edge model of OpenCV, for EdgeBoxes"
            raise UserError("options.edge_model", expected, "none")
        for name, file in (("proposals", self.proposals), ("edge_model", self.edge_model)):
            if file is not None and not file.is_file():
                raise UserError(file, f"a file, for options.{name}", "no such file")


WINDOW_RANGES: Mapping[str, Range] = {
    "windows": AT_LEAST_1,
    "window_step": (lambda value: 0 < value <= 2, "a fraction above 0, at most 2"),
    "shapes": AT_LEAST_1,
}

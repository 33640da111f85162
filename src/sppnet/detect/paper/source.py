"""Rows of windows: pooled from kept maps, or from crops (R-CNN), or above fully connected layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.detect.paper.cells import pool_windows, score_windows, target_sides, window_cells
from sppnet.detect.paper.fc import FullyConnected
from sppnet.detect.paper.images import Image
from sppnet.detect.paper.options import PaperOptions
from sppnet.detect.paper.stages import StageCache, key_of, tensors_key
from sppnet.detect.rcnn import crop_rows
from sppnet.errors import UserError
from sppnet.features import extract, resized_size
from sppnet.learn import LinearModel
from sppnet.structures import Boxes, FeatureMap, FeatureMaps, ImageSize

T = TypeVar("T")

_PIECE = 512  # windows whose rows exist at a time


class RowSource(Protocol):
    """Rows of the windows of some images."""

    @property
    def windows(self) -> Sequence[Boxes]:
        """Of each image."""
        ...

    @property
    def length(self) -> int:
        """Numbers in a row."""
        ...

    def rows(
        self, i: int, which: Tensor, *, flipped: bool = False, draw: torch.Generator | None = None
    ) -> Tensor:
        """float32 ``[n, length]`` of windows ``which`` of image i, with ``draw`` at a random scale each.

        On the CPU, as are scores, wherever the network computes.
        """
        ...

    def scores(self, i: int, model: LinearModel) -> Tensor:
        """``[N, K]``: every window of image i by K linear functions."""
        ...

    def lines(self, i: int) -> Tensor:
        """int64 ``[N, L]``: windows of image i with equal lines have equal rows."""
        ...


@dataclass
class _NetworkSource:
    """What rows from maps and rows from crops share."""

    network: Backbone
    network_key: str
    images: Sequence[Image]
    windows: Sequence[Boxes]
    options: PaperOptions
    cache: StageCache
    _latest: dict[tuple[int, bool], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _once(self, i: int, flipped: bool, make: Callable[[], T]) -> T:
        """What the network gives for image i, which nobody keeps: remembered until the next one's.

        Scores and the regressors of each class ask for it one after the other.
        """
        latest = self._latest
        if (i, flipped) not in latest:
            self._latest = latest = {(i, flipped): make()}
        return latest[i, flipped]

    @property
    def length(self) -> int:
        """Numbers in a row."""
        channels = sum(layer.channels for layer in self.network.layers)
        return channels * sum(n * n for n in self.options.levels)


@dataclass
class MapSource(_NetworkSource):
    """Rows pooled from maps, which are computed once an image and kept as bfloat16.

    Attributes:
        network: prepared.
        network_key: its digest.
        images: the images.
        windows: of each.
        options: scales, cells, levels and largest count.
        cache: keeps the maps.
    """

    _sides: dict[str, float] | None = field(default=None, init=False, repr=False, compare=False)

    def maps(self, i: int, *, flipped: bool = False) -> FeatureMaps:
        """The maps of image i, in bfloat16, on the CPU.

        Raises:
            UserError: an image that would be larger than ``options.largest`` at some scale.
        """
        image = self.images[i]
        for scale in self.options.scales:
            size = resized_size(image.size, scale, self.network)
            if size.height * size.width > self.options.largest:
                wanted = f"at most {self.options.largest} pixels at short side {scale} (options.largest)"
                todo = "Allow more, or take smaller scales; a silent cap would change the results."
                raise UserError(image.path or "source", wanted, f"{size.height * size.width}", todo)
        if not image.key:
            return self._once(i, flipped, lambda: self._compute(image, flipped=flipped))
        key = self.key(i, flipped=flipped)
        kept = self.cache.get("maps", key, lambda: self._tensors(image, flipped=flipped))
        return self._restore(image.size, kept)

    def key(self, i: int, *, flipped: bool = False) -> str:
        """Of the maps of image i."""
        return key_of("maps", self.images[i].key, self.network_key, sorted(self.options.scales), flipped)

    def _compute(self, image: Image, *, flipped: bool) -> FeatureMaps:
        pixels = image.read_for(resized_size(image.size, max(self.options.scales), self.network))
        if flipped:
            pixels = pixels.flip(2)
        found = extract(self.network, pixels, self.options.scales, image_size=image.size)
        return FeatureMaps(tuple(replace(m, values=m.values.to("cpu", torch.bfloat16)) for m in found.maps))

    def _tensors(self, image: Image, *, flipped: bool) -> dict[str, Tensor]:
        maps = self._compute(image, flipped=flipped).maps
        # Cell by cell, as pooling reads them.
        return {f"{number:03}": m.values.permute(1, 2, 0) for number, m in enumerate(maps)}

    def _restore(self, size: ImageSize, kept: dict[str, Tensor]) -> FeatureMaps:
        maps: list[FeatureMap] = []
        values = iter(kept[name].permute(2, 0, 1) for name in sorted(kept))
        for scale in sorted(set(self.options.scales)):
            resized = resized_size(size, scale, self.network)
            for info in self.network.layers:
                maps.append(FeatureMap(next(values), info.name, info.grid, resized, size))
        return FeatureMaps(tuple(maps))

    def rows(
        self, i: int, which: Tensor, *, flipped: bool = False, draw: torch.Generator | None = None
    ) -> Tensor:
        """See `RowSource`."""
        boxes = self.windows[i][which]
        maps = self.maps(i, flipped=flipped)
        scale = None
        if draw is not None:
            scale = torch.randint(len(set(self.options.scales)), (len(boxes),), generator=draw)
        lines = window_cells(
            maps, boxes.flipped() if flipped else boxes, self.options, scale, self._targets()
        )
        return pool_windows(maps, lines, self.options.levels).cpu()

    def scores(self, i: int, model: LinearModel) -> Tensor:
        """See `RowSource`; rows are never stored."""
        maps = self.maps(i)
        lines = window_cells(maps, self.windows[i], self.options, targets=self._targets())
        return score_windows(maps, lines, model, self.options.levels)

    def lines(self, i: int) -> Tensor:
        """See `RowSource`."""
        return window_cells(self.maps(i), self.windows[i], self.options, targets=self._targets())

    def _targets(self) -> dict[str, float] | None:
        """Return the sides that the release wants windows to have, measured once."""
        if self.options.cells != "release" or len(set(self.options.scales)) == 1:
            return None
        if self._sides is None:
            self._sides = target_sides(self.network)
        return self._sides


@dataclass
class CropSource(_NetworkSource):
    """Rows of crops, each convolved by itself (R-CNN), kept as float16.

    Attributes:
        network: prepared.
        network_key: its digest.
        images: the images.
        windows: of each.
        options: crops and levels count.
        cache: keeps the rows.
    """

    def every(self, i: int, *, flipped: bool = False) -> Tensor:
        """The rows of all windows of image i, float16."""
        image, boxes, crops = self.images[i], self.windows[i], self.options.crops

        def make() -> dict[str, Tensor]:
            pixels = image.read()
            if flipped:
                pixels, turned = pixels.flip(2), boxes.flipped()
            else:
                turned = boxes
            rows = crop_rows(self.network, pixels, turned, self.options.levels, crops)
            return {"rows": rows.to("cpu", torch.float16)}

        if not image.key:
            return self._once(i, flipped, make)["rows"]
        which = tensors_key({"boxes": boxes.xyxy})
        # How many run together changes nothing but the last bits.
        form = (crops.side, crops.padding, self.options.levels)
        return self.cache.get(
            "crops", key_of("crops", image.key, self.network_key, which, form, flipped), make
        )["rows"]

    def rows(
        self, i: int, which: Tensor, *, flipped: bool = False, draw: torch.Generator | None = None
    ) -> Tensor:
        """See `RowSource`; crops have one scale."""
        return self.every(i, flipped=flipped)[which].float()

    def scores(self, i: int, model: LinearModel) -> Tensor:
        """See `RowSource`."""
        return torch.cat([model.scores(part.float()) for part in self.every(i).split(_PIECE)])

    def lines(self, i: int) -> Tensor:
        """See `RowSource`: a window's corners, as no two crops are the same."""
        return self.windows[i].xyxy.contiguous().view(torch.int32).long()


@dataclass
class FcSource:
    """The outputs of fc6 or fc7 for the rows of another source, kept as float16.

    Attributes:
        base: gives the pooled rows.
        base_keys: a digest of each image's rows; ``""`` where nothing is kept.
        head: the layers.
        head_key: their digest.
        layer: which one.
        cache: keeps the outputs.
    """

    base: RowSource
    base_keys: Sequence[str]
    head: FullyConnected
    head_key: str
    layer: Literal["fc6", "fc7"]
    cache: StageCache

    @property
    def windows(self) -> Sequence[Boxes]:
        """Of each image."""
        return self.base.windows

    @property
    def length(self) -> int:
        """Numbers in a row."""
        return self.head.fc7.in_features if self.layer == "fc6" else self.head.fc7.out_features

    def _make(self, i: int) -> dict[str, Tensor]:
        place = self.head.fc6.weight.device
        parts: list[Tensor] = []
        for which in torch.arange(len(self.windows[i])).split(_PIECE):
            rows = self.base.rows(i, which).to(place)
            parts.append(self.head.features(rows, self.layer).to("cpu", torch.float16))
        none = torch.zeros(0, self.length, dtype=torch.float16)
        return {"rows": torch.cat(parts) if parts else none}

    def every(self, i: int) -> Tensor:
        """The rows of all windows of image i, float16."""
        if not self.base_keys[i]:
            return self._make(i)["rows"]
        key = key_of("fc", self.base_keys[i], self.head_key, self.layer)
        return self.cache.get("fc", key, lambda: self._make(i))["rows"]

    def rows(
        self, i: int, which: Tensor, *, flipped: bool = False, draw: torch.Generator | None = None
    ) -> Tensor:
        """See `RowSource`; neither flipped nor at a random scale."""
        assert not flipped
        assert draw is None
        return self.every(i)[which].float()

    def scores(self, i: int, model: LinearModel) -> Tensor:
        """See `RowSource`."""
        return model.scores(self.every(i).float())

    def lines(self, i: int) -> Tensor:
        """See `RowSource`."""
        return self.base.lines(i)

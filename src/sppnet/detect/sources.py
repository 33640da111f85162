"""Pooled features of proposals, from cached maps or from crops (R-CNN)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.config import as_config
from sppnet.detect.cells import CELLS_VERSION, pool_windows, score_windows, target_sides, window_cells
from sppnet.detect.crops import CropOptions, pool_crops
from sppnet.detect.feature_options import MapOptions, PoolOptions
from sppnet.detect.images import Image
from sppnet.errors import UserError
from sppnet.features import extract, pool_rows, resized_size, score_rows
from sppnet.features.keys import key_of, tensors_key
from sppnet.features.store import StageStore
from sppnet.learn import LinearModel
from sppnet.structures import Boxes, FeatureMap, FeatureMaps

_PIECE = 512  # number of proposals per step, which bounds the memory of their features


class RowSource(Protocol):
    """Features of the proposals of some images."""

    @property
    def windows(self) -> Sequence[Boxes]:
        """The proposals of each image, which may be computed on demand."""
        ...

    @property
    def length(self) -> int:
        """Length of a feature vector."""
        ...

    def rows(
        self, i: int, which: Tensor, *, flipped: bool = False, draw: torch.Generator | None = None
    ) -> Tensor:
        """Compute features ``[n, length]`` of proposals ``which`` of image i, float32 on the CPU.

        With ``draw``, each proposal is pooled at a random scale.
        """
        ...

    def scores(self, i: int, model: LinearModel, which: Tensor | None = None) -> Tensor:
        """Compute scores ``[n, K]`` of proposals ``which`` of image i by K linear functions, on the CPU.

        Without ``which``, all proposals are scored.
        """
        ...

    def at(self, i: int, boxes: Boxes) -> RowSource:
        """Return a source of other boxes on image i, which is its only image."""
        ...

    def lines(self, i: int) -> Tensor:
        """Return int64 ``[N, L]``; proposals of image i with equal lines have equal features."""
        ...


@dataclass
class MapSource:
    """Features pooled from maps, which are computed once per image.

    Attributes:
        network: the prepared network.
        network_key: digest of the network.
        images: the images.
        windows: proposals of each image.
        options: options of the maps.
        pool: options of pooling.
        store: cache of the maps, as bfloat16; None to compute them on demand.
    """

    network: Backbone
    network_key: str
    images: Sequence[Image]
    windows: Sequence[Boxes]
    options: MapOptions
    pool: PoolOptions
    store: StageStore | None
    _sides: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _latest: dict[tuple[int, bool], FeatureMaps] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def length(self) -> int:
        """Length of a feature vector."""
        return sum(layer.channels for layer in self.network.layers) * sum(n * n for n in self.pool.levels)

    def maps(self, i: int, *, flipped: bool = False) -> FeatureMaps:
        """Compute the maps of image i, or read them from the cache.

        Raises:
            UserError: the resized image exceeds ``options.largest``.
        """
        if (i, flipped) in self._latest:
            return self._latest[i, flipped]
        image = replace(self.images[i], flipped=self.images[i].flipped != flipped)
        key = self.key(image)
        if self.store is not None and key:
            # Channels last, the order in which pooling reads them.
            kept = self.store.get("maps", key, lambda: _packed(self._compute(image)))
            maps = self._unpacked(image, kept)
        else:
            maps = self._compute(image)
            if self.options.rounded:
                maps = _on_cpu(maps)
        # Scores and the regressors of each class use the same maps consecutively.
        self._latest = {(i, flipped): maps}
        return maps

    def key(self, image: Image) -> str:
        """Return a digest of all inputs of the maps of an image; ``""`` for an image in memory."""
        if not image.key:
            return ""
        return key_of("maps", image.key, self.network_key, as_config(self.options), image.flipped)

    def row_key(self, i: int) -> str:
        """Return a digest of all inputs of the features of image i; ``""`` for an image in memory."""
        image = self.images[i]
        if not image.key:
            return ""
        boxes = tensors_key({"boxes": self.windows[i].xyxy})
        return key_of("rows", self.key(image), as_config(self.pool), CELLS_VERSION, boxes)

    def _compute(self, image: Image) -> FeatureMaps:
        options, limit = self.options, self.options.long_side or None
        sizes = [resized_size(image.size, side, self.network, limit) for side in options.sides or (None,)]
        largest = max(sizes, key=lambda size: size.area)
        if limit is None and largest.area > options.largest:
            expected = f"at most {options.largest} pixels after resizing (options.largest)"
            hint = "Increase options.largest, or use smaller scales, which change the results."
            raise UserError(image.path or "source", expected, f"{largest.area}", hint)
        return extract(
            self.network,
            image.read_for(largest),
            options.sides,
            long_side=limit,
            image_size=image.size,
        )

    def _unpacked(self, image: Image, cached: dict[str, Tensor]) -> FeatureMaps:
        maps: list[FeatureMap] = []
        values = iter(cached[name].permute(2, 0, 1) for name in sorted(cached))
        for side in self.options.sides or (None,):
            resized = resized_size(image.size, side, self.network, self.options.long_side or None)
            for info in self.network.layers:
                maps.append(FeatureMap(next(values), info.name, info.grid, resized, image.size))
        return FeatureMaps(tuple(maps))

    def rows(
        self, i: int, which: Tensor, *, flipped: bool = False, draw: torch.Generator | None = None
    ) -> Tensor:
        """See `RowSource`."""
        boxes = self.windows[i][which]
        boxes = boxes.flipped() if flipped else boxes
        maps = self.maps(i, flipped=flipped)
        if self.pool.cells == "centre" and draw is None:
            return pool_rows(maps, boxes, self.pool.levels).cpu()
        scale = None
        if draw is not None:
            scale = torch.randint(len(self.options.sides or (0,)), (len(boxes),), generator=draw)
        return pool_windows(maps, self._cells(maps, boxes, scale), self.pool.levels).cpu()

    def scores(self, i: int, model: LinearModel, which: Tensor | None = None) -> Tensor:
        """Compute scores as `RowSource`, without storing features."""
        maps, boxes, levels = self.maps(i), self.windows[i], self.pool.levels
        boxes = boxes if which is None else boxes[which]
        if self.pool.cells == "centre":
            return score_rows(maps, boxes, model.weight, model.bias, levels).cpu()
        return score_windows(maps, self._cells(maps, boxes), model, levels)

    def at(self, i: int, boxes: Boxes) -> MapSource:
        """See `RowSource`."""
        moved = replace(self, images=[self.images[i]], windows=[boxes])
        moved._latest = {(0, False): self.maps(i)}
        moved._sides = self._sides
        return moved

    def lines(self, i: int) -> Tensor:
        """See `RowSource`."""
        maps = self.maps(i)
        return self._cells(maps, self.windows[i])

    def _cells(self, maps: FeatureMaps, boxes: Boxes, scale: Tensor | None = None) -> Tensor:
        if self.pool.cells == "release" and len(self.options.sides or (0,)) > 1 and not self._sides:
            # The target sides of the release are measured once.
            self._sides = target_sides(self.network)
        return window_cells(maps, boxes, self.pool, scale, self._sides or None)


def _on_cpu(maps: FeatureMaps) -> FeatureMaps:
    return FeatureMaps(tuple(replace(m, values=m.values.to("cpu", torch.bfloat16)) for m in maps.maps))


def _packed(maps: FeatureMaps) -> dict[str, Tensor]:
    # bfloat16 halves the memory; max pooling commutes with its rounding.
    return {f"{n:03}": m.values.permute(1, 2, 0).to("cpu", torch.bfloat16) for n, m in enumerate(maps.maps)}


@dataclass
class CropSource:
    """Features of crops, each convolved by itself (R-CNN), cached as float16.

    Attributes:
        network: the prepared network.
        network_key: digest of the network.
        images: the images.
        windows: proposals of each image.
        pool: options of crops and levels.
        store: cache of the features; None to compute them on demand.
    """

    network: Backbone
    network_key: str
    images: Sequence[Image]
    windows: Sequence[Boxes]
    pool: PoolOptions
    store: StageStore | None
    _latest: dict[tuple[int, bool], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def length(self) -> int:
        """Length of a feature vector."""
        return sum(layer.channels for layer in self.network.layers) * sum(n * n for n in self.pool.levels)

    def every(self, i: int, *, flipped: bool = False) -> Tensor:
        """Return the features of all proposals of image i, float16 ``[N, D]``."""
        if (i, flipped) in self._latest:
            return self._latest[i, flipped]
        image = replace(self.images[i], flipped=self.images[i].flipped != flipped)
        boxes = self.windows[i].flipped() if flipped else self.windows[i]
        crops = CropOptions(self.pool.crop_side, self.pool.crop_padding, self.pool.crop_batch)

        def make() -> dict[str, Tensor]:
            rows = pool_crops(self.network, image.read(), boxes, self.pool.levels, crops)
            return {"rows": rows.to("cpu", torch.float16)}

        key = self._key(image, self.windows[i])
        found = (make() if self.store is None else self.store.get("crops", key, make))["rows"]
        self._latest = {(i, flipped): found}
        return found

    def _key(self, image: Image, boxes: Boxes) -> str:
        if not image.key:
            return ""
        which = tensors_key({"boxes": boxes.xyxy})
        return key_of("crops", image.key, self.network_key, which, as_config(self.pool), image.flipped)

    def row_key(self, i: int) -> str:
        """Return a digest of all inputs of the features of image i; ``""`` for an image in memory."""
        return self._key(self.images[i], self.windows[i])

    def rows(
        self, i: int, which: Tensor, *, flipped: bool = False, draw: torch.Generator | None = None
    ) -> Tensor:
        """Compute features as `RowSource`; crops have one scale."""
        return self.every(i, flipped=flipped)[which].float()

    def scores(self, i: int, model: LinearModel, which: Tensor | None = None) -> Tensor:
        """See `RowSource`."""
        rows = self.every(i) if which is None else self.every(i)[which]
        return torch.cat([model.scores(part.float()) for part in rows.split(_PIECE)])

    def at(self, i: int, boxes: Boxes) -> CropSource:
        """See `RowSource`."""
        return replace(self, images=[replace(self.images[i], key="")], windows=[boxes])

    def lines(self, i: int) -> Tensor:
        """Return the corners of the proposals, because features of different crops differ."""
        return self.windows[i].xyxy.contiguous().view(torch.int32).long()

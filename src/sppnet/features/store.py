"""Feature maps of many images, computed once and kept: in memory, and on disk beyond a limit."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from io import BufferedRandom
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from sppnet.structures import FeatureMap, FeatureMaps


class MapStore:
    """A growing list of `FeatureMaps`, kept as bfloat16 in channels-last order.

    bfloat16 halves the room, and for max pooling it only rounds what would be rounded later. Use it as
    a context: the file of what went to disk is removed at its end.

    Args:
        limit_bytes: maps beyond this lie in a temporary file and are read whenever they are asked for.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes_in_memory = 0
        self.bytes_on_disk = 0
        self._maps: list[FeatureMaps] = []
        self._places: list[tuple[int | None, ...]] = []
        self._file: BufferedRandom | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, i: int) -> FeatureMaps:
        """The maps of the i-th image, values in bfloat16."""
        kept, places = self._maps[i], self._places[i]
        if all(place is None for place in places):
            return kept
        return FeatureMaps(
            tuple(
                one if place is None else replace(one, values=self._read(place, one.values))
                for one, place in zip(kept.maps, places, strict=True)
            )
        )

    def add(self, maps: FeatureMaps) -> None:
        """Keep the maps of one more image."""
        kept: list[FeatureMap] = []
        places: list[int | None] = []
        for one in maps.maps:
            values, place = self._keep(one)
            kept.append(replace(one, values=values))
            places.append(place)
        self._maps.append(FeatureMaps(tuple(kept)))
        self._places.append(tuple(places))

    def close(self) -> None:
        """Forget all maps and remove what lies on disk."""
        self._maps, self._places = [], []
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, fmap: FeatureMap) -> tuple[Tensor, int | None]:
        """The values in memory and None; or values without memory, and where they lie on disk."""
        rows = fmap.values.permute(1, 2, 0).to("cpu", torch.bfloat16, memory_format=torch.contiguous_format)
        # to() returns the same tensor where nothing changes; the caller's must not be kept alive.
        rows = rows.clone(memory_format=torch.contiguous_format)
        size = rows.numel() * rows.element_size()
        if self.bytes_in_memory + size <= self.limit_bytes:
            self.bytes_in_memory += size
            return rows.permute(2, 0, 1), None
        if self._file is None:
            # It has no name: nothing of it remains, however this process ends. `close` closes it.
            self._file = tempfile.TemporaryFile(prefix="sppnet-maps-")  # noqa: SIM115
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(rows.view(torch.uint8).numpy().tobytes())
        self.bytes_on_disk += size
        return rows.new_zeros(1).expand(rows.permute(2, 0, 1).shape), place

    def _read(self, place: int, like: Tensor) -> Tensor:
        """Read values of the shape of ``like``, which lie at ``place``."""
        assert self._file is not None
        channels, height, width = like.shape
        self._file.seek(place)
        # Memory of its own goes back to the system; pieces of the heap as large as this, taken and given back
        # between others that stay, would leave holes.
        memory = _pages(like.numel() * 2)
        if self._file.readinto(memory) != len(memory):
            raise OSError(f"the temporary file of feature maps ends before byte {place + len(memory)}")
        values = torch.frombuffer(memory, dtype=torch.bfloat16)
        return values.view(height, width, channels).permute(2, 0, 1)


def _pages(size: int) -> mmap.mmap:
    """Memory that is not part of the heap."""
    if not hasattr(mmap, "MAP_POPULATE"):
        return mmap.mmap(-1, size)
    # All pages at once, and not one by one as they are written to.
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)


def sample_cells(store: MapStore, layer: str, count: int, which: Sequence[int]) -> Tensor:
    """About ``count`` cells of one layer, evenly from the images ``which``: float32 ``[n, C]``."""
    per_image = max(1, count // max(1, len(which)))
    found, table = 0, torch.empty(0, 0)
    for i in which:
        for fmap in store[i].of_layer(layer):
            cells = fmap.values.flatten(1).T
            some = cells[:: max(1, len(cells) // per_image)]
            if found + len(some) > len(table):
                # One block that grows: pages that are never written to take no memory.
                larger = torch.empty(max(2 * len(table), 2 * count, len(some)), cells.shape[1])
                if found:
                    larger[:found] = table[:found]
                table = larger
            table[found : found + len(some)] = some
            found += len(some)
    return table[:found]

"""Feature maps of many images, computed once and kept: in memory, and on disk beyond a limit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
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
        limit_bytes: maps beyond this lie in a temporary file that is mapped into memory.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes_in_memory = 0
        self.bytes_on_disk = 0
        self._maps: list[FeatureMaps] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

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
        return self._maps[i]

    def add(self, maps: FeatureMaps) -> None:
        """Keep the maps of one more image."""
        self._maps.append(FeatureMaps(tuple(replace(m, values=self._keep(m)) for m in maps.maps)))

    def close(self) -> None:
        """Forget all maps and remove what lies on disk."""
        self._maps = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _keep(self, fmap: FeatureMap) -> Tensor:
        rows = fmap.values.permute(1, 2, 0).to("cpu", torch.bfloat16, memory_format=torch.contiguous_format)
        # to() returns the same tensor where nothing changes; the caller's must not be kept alive.
        rows = rows.clone(memory_format=torch.contiguous_format)
        size = rows.numel() * rows.element_size()
        if self.bytes_in_memory + size > self.limit_bytes:
            rows = self._to_disk(rows)
            self.bytes_on_disk += size
        else:
            self.bytes_in_memory += size
        return rows.permute(2, 0, 1)

    def _to_disk(self, rows: Tensor) -> Tensor:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="sppnet-maps-")
        path = Path(self._folder.name) / f"{self.bytes_on_disk}.bin"
        mapped = torch.from_file(str(path), shared=True, size=rows.numel(), dtype=rows.dtype)
        return mapped.view(rows.shape).copy_(rows)


def sample_cells(store: MapStore, layer: str, count: int, which: Sequence[int]) -> Tensor:
    """About ``count`` cells of one layer, evenly from the images ``which``: float32 ``[n, C]``."""
    per_image = max(1, count // max(1, len(which)))
    parts: list[Tensor] = []
    for i in which:
        for fmap in store[i].of_layer(layer):
            cells = fmap.values.flatten(1).T
            parts.append(cells[:: max(1, len(cells) // per_image)].float())
    return torch.cat(parts)

"""What finished stages made, cached under a digest of everything that they were made from."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sppnet.files import make_folder, write_tensors
from sppnet.structures import FeatureMaps


class StageStore:
    """Tensors by stage and key: in memory up to a limit, and beyond it on disk.

    With a folder every stage is a file of it, which later fits find; a file is written beside its place and
    renamed, so one that is there is whole, and one that cannot be read, or that states another key, is made
    anew. Without a folder, what exceeds the memory lies in a temporary file that has no name. Use it as a
    context: the temporary file is removed at its end.

    Args:
        limit_bytes: of memory.
        folder: made when something is cached.

    Attributes:
        made: stages that were computed.
        found: stages that were taken from the folder.

    Examples:
        >>> with StageStore(100) as store:
        ...     first = store.get("maps", "key", lambda: {"a": torch.ones(2)})
        ...     store.get("maps", "key", dict)["a"].tolist(), store.made
        ([1.0, 1.0], 1)
    """

    def __init__(self, limit_bytes: int, folder: Path | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.folder = folder
        self.made = 0
        self.found = 0
        self.bytes_in_memory = 0
        self.bytes_on_disk = 0
        self._memory: dict[tuple[str, str], dict[str, Tensor]] = {}
        self._places: dict[tuple[str, str], dict[str, tuple[int, Tensor]]] = {}
        self._file: BufferedRandom | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, stage: str, key: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return what ``make`` makes, or what it made when it was asked for the same key before.

        Args:
            stage: such as ``"maps"``.
            key: a digest of everything that the tensors depend on; ``""`` caches nothing.
            make: makes the tensors.

        Raises:
            UserError: a folder that cannot be written.
        """
        if not key:
            return dict(make())
        place = (stage, key)
        if place in self._memory:
            return dict(self._memory[place])
        if place in self._places:
            return {name: self._read(offset, like) for name, (offset, like) in self._places[place].items()}
        if self.folder is not None:
            return self._get_from(self.folder, stage, key, make)
        tensors = {name: _own(value) for name, value in make().items()}
        self.made += 1
        if not self._remember(place, tensors):
            self._places[place] = {name: (self._write(t), _like(t)) for name, t in tensors.items()}
        return tensors

    def _get_from(
        self, folder: Path, stage: str, key: str, make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        path = folder / stage / f"{key}.safetensors"
        tensors = _read_file(path, key)
        if tensors is not None:
            self.found += 1
        else:
            tensors = {name: _own(value) for name, value in make().items()}
            self.made += 1
            make_folder(path.parent)
            write_tensors(path, tensors, {"key": key})
        self._remember((stage, key), tensors)
        return tensors

    def stage_bytes(self, stage: str) -> int:
        """Return the size of all cached tensors of a stage."""
        if self.folder is None:
            parts = [t for (name, _), found in self._memory.items() if name == stage for t in found.values()]
            parts += [
                like for (name, _), p in self._places.items() if name == stage for _, like in p.values()
            ]
            return sum(t.numel() * t.element_size() for t in parts)
        place = self.folder / stage
        return sum(path.stat().st_size for path in place.glob("*.safetensors")) if place.is_dir() else 0

    def close(self) -> None:
        """Forget everything in memory and remove the temporary file."""
        self._memory, self._places = {}, {}
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remember(self, place: tuple[str, str], tensors: dict[str, Tensor]) -> bool:
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        if self.bytes_in_memory + size > self.limit_bytes:
            return False
        self.bytes_in_memory += size
        self._memory[place] = dict(tensors)
        return True

    def _write(self, values: Tensor) -> int:
        """Append values to the temporary file; returns where."""
        if self._file is None:
            # It has no name: nothing of it remains, however this process ends. `close` closes it.
            self._file = tempfile.TemporaryFile(prefix="sppnet-stages-")  # noqa: SIM115
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(values.reshape(-1).view(torch.uint8).numpy().tobytes())
        self.bytes_on_disk += values.numel() * values.element_size()
        return place

    def _read(self, place: int, like: Tensor) -> Tensor:
        """Read values of the shape and type of ``like``, which lie at ``place``."""
        assert self._file is not None
        size = like.numel() * like.element_size()
        if not size:
            return torch.zeros(like.shape, dtype=like.dtype)
        self._file.seek(place)
        # Memory of its own goes back to the system; pieces of the heap as large as this, taken and given back
        # between others that stay, would leave holes.
        memory = _pages(size)
        if self._file.readinto(memory) != size:
            raise OSError(f"the temporary file of cached stages ends before byte {place + size}")
        return torch.frombuffer(memory, dtype=like.dtype).view(like.shape)


def _own(value: Tensor) -> Tensor:
    """Return contiguous values on the CPU that share no memory with the caller's."""
    return value.detach().cpu().contiguous().clone()


def _like(value: Tensor) -> Tensor:
    """Return a tensor of the same shape and type that takes no memory."""
    return value.new_zeros(1).expand(value.shape) if value.numel() else value


def _read_file(path: Path, key: str) -> dict[str, Tensor] | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stream:
            if (stream.metadata() or {}).get("key") != key:
                return None
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def _pages(size: int) -> mmap.mmap:
    """Return memory that is not part of the heap."""
    if not hasattr(mmap, "MAP_POPULATE"):
        return mmap.mmap(-1, size)
    # All pages at once, and not one by one as they are written to.
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)


def sample_cells(maps: Iterable[FeatureMaps], layer: str, count: int, images: int) -> Tensor:
    """Return about ``count`` cells of one layer, evenly from all images: float32 ``[n, C]``.

    Args:
        maps: of each image, one after the other.
        layer: the layer's name.
        count: of cells.
        images: how many images there are.
    """
    per_image = max(1, count // max(1, images))
    found, table = 0, torch.empty(0, 0)
    for one in maps:
        for fmap in one.of_layer(layer):
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

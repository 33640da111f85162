"""Cache of the tensors of finished stages, keyed by a digest of their inputs."""

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
    """Cache of tensors by stage and key, in memory up to a limit and on disk beyond it.

    With a folder, each entry is also a file in it, which later fits reuse. Files are written atomically; a
    file that is unreadable or has another key is recomputed. Without a folder, entries beyond the memory
    limit are in an unnamed temporary file. Use the store as a context manager, which removes that file.

    Args:
        limit_bytes: maximum size of the entries in memory.
        folder: folder of the files, created when needed; None for a temporary file.

    Attributes:
        made: number of computed entries.
        found: number of entries read from the folder.
        bytes_in_memory: size of the entries in memory.
        bytes_on_disk: size of the entries in the temporary file.

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
        self._on_disk: dict[tuple[str, str], dict[str, tuple[int, Tensor]]] = {}
        self._file: BufferedRandom | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, stage: str, key: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of a stage, cached or computed by ``make``.

        Args:
            stage: name of the stage, such as ``"maps"``.
            key: digest of all inputs of the stage; ``""`` disables the cache.
            make: function that computes the tensors.

        Returns:
            The tensors by name.

        Raises:
            UserError: the folder is not writable.
        """
        if not key:
            return dict(make())
        entry = (stage, key)
        if entry in self._memory:
            return dict(self._memory[entry])
        if entry in self._on_disk:
            return {name: self._read(offset, like) for name, (offset, like) in self._on_disk[entry].items()}
        if self.folder is not None:
            return self._get_from(self.folder, stage, key, make)
        tensors = {name: _own(value) for name, value in make().items()}
        self.made += 1
        if not self._remember(entry, tensors):
            self._on_disk[entry] = {name: (self._write(t), _like(t)) for name, t in tensors.items()}
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
        """Return the size in bytes of all cached tensors of a stage."""
        if self.folder is None:
            parts = [t for (name, _), found in self._memory.items() if name == stage for t in found.values()]
            parts += [
                like for (name, _), p in self._on_disk.items() if name == stage for _, like in p.values()
            ]
            return sum(t.numel() * t.element_size() for t in parts)
        folder = self.folder / stage
        return sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder.is_dir() else 0

    def close(self) -> None:
        """Clear the memory and remove the temporary file."""
        self._memory, self._on_disk = {}, {}
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remember(self, entry: tuple[str, str], tensors: dict[str, Tensor]) -> bool:
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        if self.bytes_in_memory + size > self.limit_bytes:
            return False
        self.bytes_in_memory += size
        self._memory[entry] = dict(tensors)
        return True

    def _write(self, values: Tensor) -> int:
        """Append values to the temporary file and return their offset."""
        if self._file is None:
            # The file is unnamed, so that it disappears however the process ends.
            self._file = tempfile.TemporaryFile(prefix="sppnet-stages-")  # noqa: SIM115
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(values.reshape(-1).view(torch.uint8).numpy().tobytes())
        self.bytes_on_disk += values.numel() * values.element_size()
        return offset

    def _read(self, offset: int, like: Tensor) -> Tensor:
        """Read values of the shape and dtype of ``like`` at an offset of the temporary file."""
        assert self._file is not None
        size = like.numel() * like.element_size()
        if not size:
            return torch.zeros(like.shape, dtype=like.dtype)
        self._file.seek(offset)
        # A mapping of its own is returned to the system; blocks of this size would fragment the heap.
        memory = _pages(size)
        if self._file.readinto(memory) != size:
            raise OSError(f"the temporary file of cached stages ends before byte {offset + size}")
        return torch.frombuffer(memory, dtype=like.dtype).view(like.shape)


def _own(value: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU."""
    return value.detach().cpu().contiguous().clone()


def _like(value: Tensor) -> Tensor:
    """Return a tensor of the same shape and dtype without memory of its own."""
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
    """Allocate memory outside the heap."""
    if not hasattr(mmap, "MAP_POPULATE"):
        return mmap.mmap(-1, size)
    # Populated at once, instead of one page fault per page.
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)


def sample_cells(maps: Iterable[FeatureMaps], layer: str, count: int, images: int) -> Tensor:
    """Sample about ``count`` cells of one layer, evenly from all images.

    Args:
        maps: feature maps of each image.
        layer: name of the layer.
        count: approximate number of cells.
        images: number of images.

    Returns:
        float32 ``[n, C]``.
    """
    per_image = max(1, count // max(1, images))
    found, table = 0, torch.empty(0, 0)
    for one in maps:
        for fmap in one.of_layer(layer):
            cells = fmap.values.flatten(1).T
            some = cells[:: max(1, len(cells) // per_image)]
            if found + len(some) > len(table):
                # Grown by doubling; pages that are never written take no memory.
                larger = torch.empty(max(2 * len(table), 2 * count, len(some)), cells.shape[1])
                if found:
                    larger[:found] = table[:found]
                table = larger
            table[found : found + len(some)] = some
            found += len(some)
    return table[:found]

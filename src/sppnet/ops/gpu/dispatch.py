"""Pyramid pooling on a GPU: what the kernels need, prepared."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from sppnet.ops.gpu.tables import Regions


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


# Modules that import Triton are imported on first use, and looked up at less cost than by an import.


@cache
def _tables():
    from sppnet.ops.gpu import tables

    return tables


@cache
def _launch():
    from sppnet.ops.gpu import launch

    return launch


@cache
def _forward():
    from sppnet.ops.gpu import forward

    return forward


@cache
def _backward():
    from sppnet.ops.gpu import backward

    return backward


_AS_IT_IS = nullcontext()


def _device_of(maps: Tensor) -> AbstractContextManager[object]:
    """Make the device of ``maps`` the current one, as ``torch.cuda.device_of`` does, but at little cost."""
    index = maps.get_device()
    if index < 0 or index == torch.cuda.current_device():
        return _AS_IT_IS
    return torch.cuda.device(index)


def usable(maps: Sequence[Tensor] | Tensor) -> bool:
    """Whether the kernels take these maps: CUDA or ROCm, not float64, none of 2^31 numbers."""
    first = maps if isinstance(maps, Tensor) else maps[0]
    if not first.is_cuda or first.dtype == torch.float64:
        return False
    # Kernels step within a map, or a list's maps, in 32 bits, and number cells so.
    if isinstance(maps, Tensor):
        batch, channels, height, width = maps.shape
        fits = height * width * max(batch, channels) < 2**31
    else:
        fits = sum(m.numel() for m in maps) < 2**31
    return fits and _has_triton()


class _Place(NamedTuple):
    """Memory of ours for what a device finds out about regions, and the moment when it has."""

    bad: Tensor
    """int32, one element, which the device writes, so that nothing has to be fetched."""
    seen: np.ndarray[Any, Any]
    """The same memory, read at less cost."""
    checked: torch.cuda.Event


class _Notice(threading.local):
    """A thread's places, by device, and the streams that were current."""

    def __init__(self) -> None:
        self.places: dict[int, _Place] = {}
        self.streams: dict[tuple[int, int], torch.cuda.Stream] = {}

    def of(self, index: int) -> _Place:
        """The place for a device."""
        if index not in self.places:
            bad = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)
            self.places[index] = _Place(bad, bad.numpy(), torch.cuda.Event())
        return self.places[index]

    def stream(self, index: int, raw: int) -> torch.cuda.Stream:
        """The device's current stream, which is ``raw``: torch makes an object of it at each call."""
        key = index, raw
        if key not in self.streams:
            self.streams[key] = torch.cuda.current_stream(index)
        return self.streams[key]


_notice = _Notice()


def regions_there(maps: Tensor, regions: Sequence[Tensor]) -> Regions:
    """Regions, B times ``[N_i, 4]``, on the device of the maps, for the kernels."""
    made = _tables().Regions
    if len(regions) == 1:
        (one,) = regions
        if one.device != maps.device:
            one = one.to(maps.device, non_blocking=True)
        return made(one.contiguous(), None)
    there = [one.to(maps.device, non_blocking=True) for one in regions]
    ends = torch.tensor([one.shape[0] for one in there], device="cpu").cumsum(0)
    return made(torch.cat(there), ends.to(maps.device, non_blocking=True))


def _joined(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Maps of different sizes as one of a single row, ``[1, C, 1, S]``, and the boxes of all of them."""
    heights, widths = (np.array([m.shape[side] for m in maps]) for side in (1, 2))
    cells, more = heights * widths, heights + widths + 1
    zeros = np.zeros_like(cells)
    firsts = [np.arange(len(cells)), cells.cumsum() - cells, more.cumsum() - more, widths]
    table = torch.from_numpy(np.stack([*firsts, zeros, zeros, widths, heights], 1).astype(np.int32))
    one = torch.cat([m.flatten(1) for m in maps], 1)[None, :, None]
    return one, table.to(maps[0].device, non_blocking=True)


def pool(maps: Sequence[Tensor] | Tensor, levels: Sequence[int], mode: str) -> Tensor:
    """Rows of whole maps."""
    tables, forward = _tables(), _forward()
    with _device_of(maps if isinstance(maps, Tensor) else maps[0]):
        joined, table = (maps, None) if isinstance(maps, Tensor) else _joined(maps)
        given = None if table is None else len(maps)
        plan = forward.pooling(tables.form_of(joined), given, tuple(levels), mode)
        return forward.pool(plan, _launch().stream_of(joined), tables.cells_of(joined), table)


def pool_regions(
    maps: Tensor, regions: Regions, levels: Sequence[int], mode: str, known: bool
) -> tuple[Tensor, bool]:
    """Rows of regions, and whether all were inside their maps; True if that was ``known``.

    Those outside were clamped. The answer is on its way while the device pools. A graph that is captured
    outlives the call: what it will find cannot be told.
    """
    tables, forward = _tables(), _forward()
    with _device_of(maps):
        told = not known and not torch.cuda.is_current_stream_capturing()
        form = tables.form_of_regions(regions, told)
        plan = forward.pooling(tables.form_of(maps), form, tuple(levels), mode)
        stream, place = _launch().stream_of(maps), _notice.of(maps.get_device()) if told else None
        bad = None if place is None else place.bad
        read, boxes = tables.prepare(plan.preparation, stream, maps, regions, bad)
        if place is not None:
            place.checked.record(_notice.stream(maps.get_device(), stream))
        if plan.preparation.tables is None:
            read = tables.cells_of(maps)
        rows = forward.pool(plan, stream, read, boxes)
        if place is None:
            return rows, True
        place.checked.synchronize()
    all_inside = not place.seen[0]
    if not all_inside:
        place.seen[0] = 0
    return rows, all_inside


def pool_backward(
    grad: Tensor,
    maps: Sequence[Tensor] | Tensor,
    regions: Regions | None,
    levels: Sequence[int],
    mode: str,
) -> list[Tensor]:
    """The gradient for the maps, with their types and strides; of a batch a list of one.

    Args:
        grad: of the rows.
        maps: a batch, or maps of different sizes.
        regions: checked before; None for whole maps.
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.
    """
    with _device_of(maps if isinstance(maps, Tensor) else maps[0]):
        if isinstance(maps, Tensor):
            return [_backward().pool_backward(grad, maps, regions, None, levels, mode)]
        joined, table = _joined(maps)
        sizes = [(m.shape[1], m.shape[2]) for m in maps]
        given = _backward().pool_backward(grad, joined, table, sizes, levels, mode)
        parts = given[0, :, 0].split([h * w for h, w in sizes], 1)
        return [torch.empty_like(m).copy_(part.view(m.shape)) for m, part in zip(maps, parts, strict=True)]

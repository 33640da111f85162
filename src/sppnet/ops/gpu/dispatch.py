"""Pyramid pooling on a GPU: conversion of maps and regions, and the choice of kernels."""

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


# Modules that import Triton are imported on first use and cached, because import statements are slower.


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
    """Set the current device to that of ``maps``, faster than ``torch.cuda.device_of``."""
    index = maps.get_device()
    if index < 0 or index == torch.cuda.current_device():
        return _AS_IT_IS
    return torch.cuda.device(index)


def usable(maps: Sequence[Tensor] | Tensor) -> bool:
    """Return whether the kernels support maps: on CUDA or ROCm, not float64, fewer than 2^31 values."""
    first = maps if isinstance(maps, Tensor) else maps[0]
    if not first.is_cuda or first.dtype == torch.float64:
        return False
    # Kernels use 32-bit offsets within a map, or within all maps of a list, and 32-bit cell indices.
    if isinstance(maps, Tensor):
        batch, channels, height, width = maps.shape
        fits = height * width * max(batch, channels) < 2**31
    else:
        fits = sum(m.numel() for m in maps) < 2**31
    return fits and _has_triton()


class _Flag(NamedTuple):
    """Host memory for the result of the check of regions on a device, and its event."""

    bad: Tensor
    """int32, one element of pinned memory, which the device writes without a copy."""
    seen: np.ndarray[Any, Any]
    """The same memory as an array, which is faster to read."""
    checked: torch.cuda.Event


class _ThreadState(threading.local):
    """The flag of each device and the current streams, per thread."""

    def __init__(self) -> None:
        self.flags: dict[int, _Flag] = {}
        self.streams: dict[tuple[int, int], torch.cuda.Stream] = {}

    def of(self, index: int) -> _Flag:
        """Return the flag of a device, which is created on first use."""
        if index not in self.flags:
            bad = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)
            self.flags[index] = _Flag(bad, bad.numpy(), torch.cuda.Event())
        return self.flags[index]

    def stream(self, index: int, raw: int) -> torch.cuda.Stream:
        """Return the current stream of a device with the handle ``raw``, without a new object per call."""
        key = index, raw
        if key not in self.streams:
            self.streams[key] = torch.cuda.current_stream(index)
        return self.streams[key]


_state = _ThreadState()


def regions_there(maps: Tensor, regions: Sequence[Tensor]) -> Regions:
    """Concatenate regions ``[N_i, 4]`` of B maps on the device of the maps."""
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
    """Join maps of different sizes to a map of one row, ``[1, C, 1, S]``; return the boxes of each too."""
    heights, widths = (np.array([m.shape[side] for m in maps]) for side in (1, 2))
    cells, more = heights * widths, heights + widths + 1
    zeros = np.zeros_like(cells)
    firsts = [np.arange(len(cells)), cells.cumsum() - cells, more.cumsum() - more, widths]
    table = torch.from_numpy(np.stack([*firsts, zeros, zeros, widths, heights], 1).astype(np.int32))
    one = torch.cat([m.flatten(1) for m in maps], 1)[None, :, None]
    return one, table.to(maps[0].device, non_blocking=True)


def pool(maps: Sequence[Tensor] | Tensor, levels: Sequence[int], mode: str) -> Tensor:
    """Compute features ``[B, C * bins]`` of whole maps."""
    tables, forward = _tables(), _forward()
    with _device_of(maps if isinstance(maps, Tensor) else maps[0]):
        joined, table = (maps, None) if isinstance(maps, Tensor) else _joined(maps)
        given = None if table is None else len(maps)
        plan = forward.pooling(tables.form_of(joined), given, tuple(levels), mode)
        return forward.pool(plan, _launch().stream_of(joined), tables.cells_of(joined), table)


def pool_regions(
    maps: Tensor, regions: Regions, levels: Sequence[int], mode: str, known: bool
) -> tuple[Tensor, bool]:
    """Compute features of regions; return whether all regions are inside their maps too, True if ``known``.

    Regions outside are clamped. The result of the check arrives while the device pools. During the capture of
    a graph nothing can be reported, and the second value is True.
    """
    tables, forward = _tables(), _forward()
    with _device_of(maps):
        reports = not known and not torch.cuda.is_current_stream_capturing()
        form = tables.form_of_regions(regions, reports)
        plan = forward.pooling(tables.form_of(maps), form, tuple(levels), mode)
        stream, flag = _launch().stream_of(maps), _state.of(maps.get_device()) if reports else None
        bad = None if flag is None else flag.bad
        read, boxes = tables.prepare(plan.preparation, stream, maps, regions, bad)
        if flag is not None:
            flag.checked.record(_state.stream(maps.get_device(), stream))
        if plan.preparation.tables is None:
            read = tables.cells_of(maps)
        rows = forward.pool(plan, stream, read, boxes)
        if flag is None:
            return rows, True
        flag.checked.synchronize()
    all_inside = not flag.seen[0]
    if not all_inside:
        flag.seen[0] = 0
    return rows, all_inside


def pool_backward(
    grad: Tensor,
    maps: Sequence[Tensor] | Tensor,
    regions: Regions | None,
    levels: Sequence[int],
    mode: str,
) -> list[Tensor]:
    """Compute the gradient for the maps, with their dtypes and strides; a list of one for a batch.

    Args:
        grad: gradient of the features.
        maps: a batch, or maps of different sizes.
        regions: validated regions; None for whole maps.
        levels: bins per side of each level.
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

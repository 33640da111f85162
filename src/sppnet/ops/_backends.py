"""Choice of the backend: CPU kernels, GPU kernels, or plain tensor operations; checks of region values.

Shape letters as in `sppnet.ops.pyramid`. ``maps`` is a list of one batch ``[B, C, H, W]`` or of maps
``[C, H_i, W_i]``. ``regions`` is empty for whole maps and otherwise has one tensor per map of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops import _fallback
from sppnet.ops.bins import count_bins
from sppnet.ops.cpu import dispatch as cpu
from sppnet.ops.gpu import dispatch as gpu

_FEATURE_BYTES = 64 << 20
"""Maximum size in bytes of the features for scores without a fused kernel."""
_ARGMAX_CELLS = 1 << 16
"""Number of cells that 16-bit argmax indices can represent."""


def count_rows(maps: Sequence[Tensor], regions: Sequence[Tensor]) -> int:
    """Return the number of feature vectors."""
    if regions:
        return sum(one.shape[0] for one in regions)
    return maps[0].shape[0] if maps[0].ndim == 4 else len(maps)


def check_count(regions: Sequence[Tensor], maps: Tensor) -> None:
    """Raise a `UserError` unless there is one tensor of regions per map."""
    if len(regions) != maps.shape[0]:
        raise UserError("regions", f"one tensor for each of the {maps.shape[0]} maps", len(regions))


def check_cells(
    boxes: np.ndarray[Any, Any], lengths: Sequence[int], height: int, width: int, repeats: int = 1
) -> np.ndarray[Any, Any]:
    """Check that regions are inside their map.

    Args:
        boxes: x0, y0, x1 and y1 of all regions, ``[4, N]``, N at least 1.
        lengths: number of regions per map.
        height: height of the map in cells.
        width: width of the map in cells.
        repeats: number of regions that share an index, under ``vmap``.

    Returns:
        Widths and heights of the regions, ``[2, N]``.

    Raises:
        UserError: a region is empty or outside its map; the message names the first one.
    """
    sides = boxes[2:] - boxes[:2]
    if boxes.min() >= 0 and sides.min() >= 1 and boxes[2].max() <= width and boxes[3].max() <= height:
        return sides
    x0, y0, x1, y1 = boxes
    bad = (x0 < 0) | (y0 < 0) | (x1 <= x0) | (y1 <= y0) | (x1 > width) | (y1 > height)
    at = int(bad.argmax())
    owner = int(np.searchsorted(np.cumsum(lengths), at, side="right"))
    row = (at - sum(lengths[:owner])) % max(1, lengths[owner] // repeats)
    expected = f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
    raise UserError(f"regions[{owner}][{row}]", expected, boxes[:, at].tolist())


def _checked(maps: Tensor, regions: Sequence[Tensor]) -> cpu.Boxes:
    """Validate all regions on the CPU; this synchronises with other devices."""
    lengths = tuple(one.shape[0] for one in regions)
    given = torch.cat([one.to("cpu", torch.int64) for one in regions]).numpy()
    boxes = np.ascontiguousarray(given.T)
    return cpu.Boxes(boxes, check_cells(boxes, lengths, maps.shape[2], maps.shape[3]), lengths)


def _on_cpu(maps: Sequence[Tensor]) -> bool:
    return maps[0].device.type == "cpu" and maps[0].dtype != torch.float64


def _batch_or_list(maps: Sequence[Tensor]) -> Tensor | Sequence[Tensor]:
    return maps[0] if maps[0].ndim == 4 else maps


def _is_empty(maps: Sequence[Tensor], regions: Sequence[Tensor]) -> bool:
    return count_rows(maps, regions) == 0 or maps[0].shape[-3] == 0


def pool(
    maps: Sequence[Tensor], regions: Sequence[Tensor], levels: Sequence[int], mode: str
) -> tuple[Tensor, object]:
    """Compute features ``[N, C * bins]``; return the validated regions for `backward` too."""
    if regions:
        check_count(regions, maps[0])
    if _is_empty(maps, regions):
        return maps[0].new_empty(count_rows(maps, regions), maps[0].shape[-3] * count_bins(levels)), None
    together = _batch_or_list(maps)
    if regions:
        return _pool_regions(maps[0], regions, levels, mode)
    if _on_cpu(maps):
        return cpu.pool(together, cpu.whole_plan(together, levels, mode), mode), None
    if gpu.usable(together):
        return gpu.pool(together, levels, mode), None
    return _fallback.pool(maps, regions, levels, mode), None


def _pool_regions(
    maps: Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str
) -> tuple[Tensor, object]:
    if _on_cpu([maps]):
        boxes = _checked(maps, regions)
        plan = cpu.region_plan(maps, boxes, levels, mode, paper=True)
        return cpu.pool(maps, plan, mode), boxes
    if gpu.usable(maps):
        # Regions on the CPU are checked here, without synchronisation with the device.
        known = all(one.is_cpu for one in regions)
        if known:
            _checked(maps, regions)
        there = gpu.regions_there(maps, regions)
        rows, all_inside = gpu.pool_regions(maps, there, levels, mode, known)
        if not all_inside:
            _checked(maps, regions)
        return rows, there
    _checked(maps, regions)
    there = [one.to(maps.device) for one in regions]
    return _fallback.pool_regions(maps, there, levels, mode), there


def backward(
    grad: Tensor,
    maps: Sequence[Tensor],
    regions: Sequence[Tensor],
    levels: Sequence[int],
    mode: str,
    checked: Any = None,
) -> list[Tensor]:
    """Compute the gradients of `pool` for the maps, with their strides.

    ``checked`` are the regions returned by `pool`; None to validate them again.
    """
    if _is_empty(maps, regions):
        return [torch.zeros_like(m) for m in maps]
    together = _batch_or_list(maps)
    if _on_cpu(maps):
        if regions:
            boxes = _checked(maps[0], regions) if checked is None else checked
            plan = cpu.region_plan(maps[0], boxes, levels, mode)
        else:
            plan = cpu.whole_plan(together, levels, mode)
        return cpu.pool_backward(grad, together, plan, mode)
    if gpu.usable(together):
        there = checked
        if regions and checked is None:
            there = gpu.regions_there(maps[0], regions)
        return gpu.pool_backward(grad, together, there, levels, mode)
    there = [one.to(maps[0].device) for one in regions]
    given = _fallback.backward(grad, maps, there, levels, mode)
    return [torch.empty_like(m).copy_(g) for m, g in zip(maps, given, strict=True)]


def has_argmax(maps: Sequence[Tensor], regions: Sequence[Tensor], mode: str) -> bool:
    """Return whether `pool_argmax` can replace `pool`, so that its gradient need not search for maxima."""
    first = maps[0]
    able = mode == "max" and not regions and first.ndim == 4 and first.dtype == torch.float32
    # Not in exported programs, which have no backward pass and would have the limit on the size of maps.
    able = able and first.device.type == "cpu" and not torch.compiler.is_exporting()
    return able and first.shape[2] * first.shape[3] <= _ARGMAX_CELLS


def argmax_shape(maps: Tensor, levels: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the argmax indices, in blocks of 16 channels."""
    return maps.shape[0], (maps.shape[1] + 15) // 16, count_bins(levels), 16


def pool_argmax(maps: Tensor, levels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compute max pooling of float32 maps on the CPU, and the argmax indices."""
    if _is_empty([maps], []):
        rows = maps.new_empty(maps.shape[0], maps.shape[1] * count_bins(levels))
        return rows, maps.new_empty(argmax_shape(maps, levels), dtype=torch.int16)
    return cpu.pool_argmax(maps, levels)


def backward_argmax(grad: Tensor, argmax: Tensor, maps: Tensor, levels: Sequence[int]) -> Tensor:
    """Compute the gradient of `pool_argmax` for the maps, with their strides."""
    if _is_empty([maps], []):
        return torch.zeros_like(maps)
    return cpu.pool_argmax_backward(grad, argmax, maps, levels)


def score(
    maps: Tensor, regions: Sequence[Tensor], weight: Tensor, levels: Sequence[int], mode: str
) -> Tensor:
    """Compute products ``[N, K]`` of the features of regions and ``weight`` ``[K, C * bins]``."""
    check_count(regions, maps)
    count = sum(one.shape[0] for one in regions)
    if not count or not maps.shape[1] or not len(weight):
        return weight.new_zeros(count, len(weight))
    if _on_cpu([maps]) and mode == "max" and weight.dtype != torch.float64:
        scores = cpu.score(maps, _checked(maps, regions), weight, levels)
        if scores is not None:
            return scores.to(weight.dtype)
    most = max(64, _FEATURE_BYTES // max(1, weight.shape[1] * weight.element_size()))
    parts = [
        _pool_regions(maps[i : i + 1], [some], levels, mode)[0].to(weight.dtype) @ weight.T
        for i, boxes in enumerate(regions)
        for some in boxes.split(most)
        if len(some)
    ]
    return torch.cat(parts)

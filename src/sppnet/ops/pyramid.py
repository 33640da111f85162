"""Pyramid pooling of whole maps and of regions: the contract, checks, dispatch and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops import _registered
from sppnet.ops._registered import check_count
from sppnet.ops.bins import LEVELS, check_levels, check_mode, count_bins

Mode = Literal["max", "mean"]
Order = Literal["channels", "bins"]
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def spatial_pyramid_pool(
    maps: Tensor | Sequence[Tensor],
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
    order: Order = "channels",
) -> Tensor:
    """Pool whole maps of any size into rows of one length (paper, section 2.2).

    Args:
        maps: ``[B, C, H, W]``, or a sequence of B maps ``[C, H_i, W_i]`` of one dtype and device, each of
            its own size. float32, float16, bfloat16 or float64, any strides; H and W at least 1.
        levels: bins a side of each level; bin i of n spans ``floor(i * size / n)`` to
            ``ceil((i + 1) * size / n)``, so a level may exceed the map.
        mode: ``"max"`` or ``"mean"``.
        order: ``"channels"`` or ``"bins"``, see below.

    Returns:
        ``[B, C * bins]`` in the dtype of the maps, ordered by level, then channel, bin row, bin column:
        ``cat([adaptive_max_pool2d(m, n).flatten(1) for n in levels], 1)``. With ``order="bins"`` the
        channels run fastest: level, bin row, bin column, channel.

    Raises:
        UserError: maps of another shape or dtype or without cells, bad levels, an unknown mode or order.
    """
    sides = check_levels(levels)
    _check_words(mode, order)
    if isinstance(maps, Tensor):
        _check_maps(maps)
        if _registered.worth_placing(maps, mode):
            return _registered.pool_placed(maps, sides, order)[0]
        return _registered.pool_batch(maps, sides, mode, order)
    several = list(maps)
    _check_list(several)
    return _registered.pool_list(several, sides, mode, order)


def region_pyramid_pool(
    maps: Tensor,
    regions: Sequence[Tensor],
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
    order: Order = "channels",
) -> Tensor:
    """Pool regions of maps, each into a row of one length (paper, section 3.1).

    Args:
        maps: ``[B, C, H, W]``, any floating dtype and strides.
        regions: B integer tensors ``[N_i, 4]``: ``(x0, y0, x1, y1)`` in cells, half open,
            ``0 <= x0 < x1 <= W`` and ``0 <= y0 < y1 <= H``. ``N_i`` may be 0. On the device of the maps, or
            on the CPU, where checking them keeps no other device waiting.
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.
        order: ``"channels"`` or ``"bins"``, as in `spatial_pyramid_pool`.

    Returns:
        ``[sum N_i, C * bins]`` in the dtype of the maps, each row ordered as in `spatial_pyramid_pool`.

    Raises:
        UserError: as `spatial_pyramid_pool`, and for regions that are not integers, of another shape,
            empty or outside their map; it names the first offender. A CUDA graph being captured raises
            none for regions on the device: there, those outside are clamped to their map.
    """
    sides = check_levels(levels)
    _check_words(mode, order)
    _check_maps(maps)
    lists = list(regions)
    _check_regions(maps, lists)
    return _registered.pool_regions(maps, lists, sides, mode, order)


def region_pyramid_scores(
    maps: Tensor,
    regions: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    levels: Sequence[int] = LEVELS,
    mode: Mode = "max",
) -> Tensor:
    """Score regions with a linear head without storing their pooled rows.

    Equal to ``linear(region_pyramid_pool(maps, regions, levels, mode), weight, bias)`` up to rounding.

    Args:
        maps: ``[B, C, H, W]``.
        regions: as in `region_pyramid_pool`.
        weight: ``[K, C * bins]``, columns in the order of the pooled row.
        bias: ``[K]``, or None for none.
        levels: bins a side of each level.
        mode: ``"max"`` or ``"mean"``.

    Returns:
        ``[sum N_i, K]`` in the dtype of ``weight``.

    Raises:
        UserError: as `region_pyramid_pool`, and for a weight or bias of another shape.
    """
    sides = check_levels(levels)
    _check_words(mode, "channels")
    _check_maps(maps)
    lists = list(regions)
    _check_regions(maps, lists)
    _check_head(maps, weight, bias, sides)
    if torch.is_grad_enabled() and (maps.requires_grad or weight.requires_grad):
        rows = _registered.pool_regions(maps, lists, sides, mode, "channels")
        return torch.nn.functional.linear(rows.to(weight.dtype), weight, bias)
    scores = _registered.score_regions(maps, lists, weight, sides, mode)
    return scores if bias is None else scores + bias


def _check_words(mode: str, order: str) -> None:
    check_mode(mode)
    if order not in ("channels", "bins"):
        raise UserError("order", '"channels" or "bins"', repr(order))


def _check_maps(maps: Tensor) -> None:
    if maps.ndim != 4 or maps.shape[2] < 1 or maps.shape[3] < 1:
        raise UserError("maps", "a tensor [B, C, H, W], H and W at least 1", f"shape {list(maps.shape)}")
    if maps.dtype not in _DTYPES:
        raise UserError("maps", "float32, float16, bfloat16 or float64", maps.dtype)


def _check_list(maps: list[Tensor]) -> None:
    if not maps:
        raise UserError("maps", "at least one map", "an empty sequence")
    first = maps[0]
    for i, one in enumerate(maps):
        if one.ndim != 3 or one.shape[1] < 1 or one.shape[2] < 1 or one.shape[0] != first.shape[0]:
            wanted = f"a tensor [C, H, W], C as in maps[0] ({first.shape[0]}), H and W at least 1"
            raise UserError(f"maps[{i}]", wanted, f"shape {list(one.shape)}")
        if one.dtype not in _DTYPES or one.dtype != first.dtype or one.device != first.device:
            wanted = f"{first.dtype} on {first.device} as maps[0], a floating type"
            raise UserError(f"maps[{i}]", wanted, f"{one.dtype} on {one.device}")


def _check_regions(maps: Tensor, regions: list[Tensor]) -> None:
    """What shapes and types tell; values are checked in bulk where the data are read."""
    if not torch.compiler.is_compiling():
        # Compiled code must not fix the batch by a comparison: it is made again where the data are read.
        check_count(regions, maps)
    for i, one in enumerate(regions):
        if one.ndim != 2 or one.shape[1] != 4:
            raise UserError(f"regions[{i}]", "a tensor [N, 4]", f"shape {list(one.shape)}")
        if one.dtype.is_floating_point or one.dtype.is_complex or one.dtype == torch.bool:
            raise UserError(f"regions[{i}]", "integer cells (x0, y0, x1, y1)", one.dtype)
        if one.device != maps.device and one.device.type != "cpu":
            raise UserError(f"regions[{i}]", f"a tensor on {maps.device}, as the maps, or cpu", one.device)


def _check_head(maps: Tensor, weight: Tensor, bias: Tensor | None, levels: list[int]) -> None:
    length = maps.shape[1] * count_bins(levels)
    if weight.ndim != 2 or weight.shape[1] != length:
        raise UserError("weight", f"a tensor [K, {length}]", f"shape {list(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise UserError("bias", f"a tensor [{weight.shape[0]}]", f"shape {list(bias.shape)}")

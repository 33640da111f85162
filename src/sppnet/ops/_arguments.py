"""Conversion and validation of the arguments of the pooling functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.ops._backends import check_count
from sppnet.ops._torch_state import values_of
from sppnet.ops.bins import count_bins
from sppnet.ops.cells import scaled_cells

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_BATCH = "a tensor [B, C, H, W] with H and W at least 1"


def describe(value: object) -> str:
    """Describe a value for an error message: shape and dtype of a tensor or array, otherwise its type."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and dtype {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {list(value.shape)} and dtype {value.dtype}"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)[:80]
    return f"an object of type {type(value).__name__}"


def _as_tensor(where: str, value: object, expected: str) -> Tensor:
    """Convert a tensor or a numeric array to a dense tensor."""
    if isinstance(value, Tensor):
        if value.is_nested or value.layout != torch.strided or value.is_quantized:
            raise UserError(where, expected, f"a tensor of layout {value.layout} and dtype {value.dtype}")
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        # Copied if torch cannot share the memory: other byte order, negative strides, read-only arrays.
        native = np.require(value, value.dtype.newbyteorder("="), ["W", "A"])
        try:
            return torch.from_numpy(native if min(native.strides, default=0) >= 0 else native.copy())
        except TypeError:  # float128
            pass
    raise UserError(where, expected, describe(value))


def check_batch(maps: object) -> Tensor:
    """Validate maps of one size, ``[B, C, H, W]``."""
    given = _as_tensor("maps", maps, _BATCH)
    if given.ndim != 4 or given.shape[2] < 1 or given.shape[3] < 1:
        hint = "For one map pass maps[None]." if given.ndim == 3 else ""
        raise UserError("maps", _BATCH, f"shape {list(given.shape)}", hint)
    if given.dtype not in _DTYPES:
        raise UserError("maps", "float32, float16, bfloat16 or float64", given.dtype)
    return given


def check_list(maps: object) -> list[Tensor]:
    """Validate a list of maps of any size, ``[C, H_i, W_i]``."""
    if not isinstance(maps, Iterable) or isinstance(maps, str | bytes | dict):
        raise UserError("maps", f"{_BATCH}, or a sequence of tensors [C, H, W]", describe(maps))
    several = list(maps)
    if not several:
        raise UserError("maps", "at least one map", "an empty sequence")
    if _are_plain_maps(several):
        return several
    result: list[Tensor] = []
    for i, value in enumerate(several):
        one = _as_tensor(f"maps[{i}]", value, "a tensor [C, H, W]")
        first = result[0] if result else one
        if one.ndim != 3 or one.shape[1] < 1 or one.shape[2] < 1 or one.shape[0] != first.shape[0]:
            channels = f", C as in maps[0] ({first.shape[0]})" if first.ndim == 3 else ""
            expected = f"a tensor [C, H, W]{channels}, H and W at least 1"
            raise UserError(f"maps[{i}]", expected, f"shape {list(one.shape)}")
        if one.dtype not in _DTYPES:
            raise UserError(f"maps[{i}]", "float32, float16, bfloat16 or float64", one.dtype)
        if one.dtype != first.dtype or one.device != first.device:
            expected = f"{first.dtype} on {first.device} as maps[0]"
            raise UserError(f"maps[{i}]", expected, f"{one.dtype} on {one.device}")
        result.append(one)
    return result


def _are_plain_maps(maps: list[Any]) -> bool:
    """Return whether maps are valid without conversion; otherwise the slower checks are necessary."""
    first = maps[0]
    if type(first) is not Tensor or first.dtype not in _DTYPES or first.ndim != 3:
        return False
    channels, dtype, device = first.shape[0], first.dtype, first.device
    for one in maps:
        if type(one) is not Tensor or one.dtype is not dtype or one.device != device or one.is_nested:
            return False
        shape = one.shape
        if len(shape) != 3 or shape[0] != channels or 0 in shape[1:] or one.layout is not torch.strided:
            return False
    return True


def _per_map(maps: Tensor, values: object, expected: str) -> list[Any]:
    """Return one entry per map, from a sequence or, for one map, from a single entry."""
    if isinstance(values, Tensor | np.ndarray):
        if values.ndim == 2 and maps.shape[0] == 1:
            return [values]
        if values.ndim != 3:
            raise UserError("regions", expected, describe(values))
        return list(values)
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | dict):
        raise UserError("regions", expected, describe(values))
    entries: list[Any] = list(values)
    first: Any = entries[0] if entries else None
    flat = isinstance(first, list | tuple) and first and all(isinstance(v, int | float) for v in first)
    return [entries] if flat and maps.shape[0] == 1 else entries


def _one_per_map(where: str, value: object, maps: Tensor, expected: str) -> Tensor:
    """Validate the regions or boxes ``[N, 4]`` of one map."""
    if isinstance(value, list | tuple):
        value = _from_numbers(where, value, expected)
    one = _as_tensor(where, value, expected)
    if one.ndim != 2 or one.shape[1] != 4:
        raise UserError(where, expected, f"shape {list(one.shape)}")
    if one.dtype.is_complex or one.dtype == torch.bool:
        raise UserError(where, expected, one.dtype)
    if one.device != maps.device and one.device.type != "cpu":
        raise UserError(where, f"a tensor on {maps.device}, as the maps, or cpu", one.device)
    return one


def _from_numbers(where: str, value: Sequence[object], expected: str) -> object:
    if not value:
        return torch.zeros(0, 4, dtype=torch.int64)
    if all(isinstance(row, Tensor) for row in value):
        value = [row.tolist() for row in value if isinstance(row, Tensor)]
    try:
        return np.array(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(where, expected, "rows of different lengths or types") from error


def _is_tensor(value: object) -> bool:
    return type(value) is Tensor


def _is_plain_region(value: object) -> bool:
    """Return whether regions need no conversion: int64 or int32 ``[N, 4]`` on the CPU."""
    if type(value) is not Tensor or not value.is_cpu or value.dtype not in (torch.int64, torch.int32):
        return False
    return value.ndim == 2 and value.shape[1] == 4 and value.layout is torch.strided and not value.is_nested


def check_regions(maps: Tensor, regions: object) -> list[Tensor]:
    """Validate regions in cells, an integer tensor ``[N_i, 4]`` per map; values are checked later."""
    if isinstance(regions, list) and all(map(_is_tensor, regions)):
        several: list[Any] = regions
    else:
        expected = "a sequence of integer tensors [N, 4], one per map"
        if isinstance(regions, Tensor | np.ndarray) and regions.ndim == 2 and regions.shape[1] == 5:
            hint = "For boxes in image pixels with a map index pass spatial_scale."
            raise UserError("regions", expected, describe(regions), hint)
        several = _per_map(maps, regions, expected)
    if not torch.compiler.is_compiling() or not several:
        # Not compared in compiled code, which would specialise on the batch size; the operator checks again.
        check_count(several, maps)
    if all(map(_is_plain_region, several)):
        return several
    expected = "an integer tensor [N, 4]"
    checked = [_one_per_map(f"regions[{i}]", one, maps, expected) for i, one in enumerate(several)]
    for i, one in enumerate(checked):
        if one.dtype.is_floating_point:
            hint = "For boxes in image pixels pass spatial_scale."
            raise UserError(f"regions[{i}]", expected, one.dtype, hint)
    return checked


def check_scale(spatial_scale: object) -> float:
    """Validate a finite factor above 0."""
    if isinstance(spatial_scale, int | float | np.integer | np.floating) and not isinstance(
        spatial_scale, bool
    ):
        try:
            scale = float(spatial_scale)
        except OverflowError:
            scale = math.inf
        if 1e-9 <= scale <= 1e9:
            return scale
    raise UserError("spatial_scale", "cells per image pixel, such as 1/16", describe(spatial_scale))


def check_boxes(maps: Tensor, boxes: object, spatial_scale: object) -> tuple[list[Tensor], Tensor | None]:
    """Convert boxes in image pixels to regions.

    Args:
        maps: ``[B, C, H, W]``.
        boxes: B tensors ``[N_i, 4]``, or one ``[K, 5]`` with the index of the map first.
        spatial_scale: cells per image pixel.

    Returns:
        B tensors of regions, and the index of each row of ``[K, 5]`` among them; None if they are in order.
    """
    scale = check_scale(spatial_scale)
    expected = "float boxes: a sequence of tensors [N, 4], one per map, or one tensor [K, 5]"
    order = None
    if isinstance(boxes, Tensor | np.ndarray) and boxes.ndim == 2 and boxes.shape[1] == 5:
        several, order = _split(maps, _as_tensor("regions", boxes, expected))
    else:
        several = _per_map(maps, boxes, expected)
    if not torch.compiler.is_compiling() or not several:
        check_count(several, maps)
    regions: list[Tensor] = []
    for i, value in enumerate(several):
        one = _one_per_map(f"regions[{i}]", value, maps, "float boxes (x0, y0, x1, y1) [N, 4]")
        _check_box_values(f"regions[{i}]", one)
        regions.append(scaled_cells(one, scale, maps.shape[2], maps.shape[3]))
    return regions, order


def _check_box_values(where: str, boxes: Tensor) -> None:
    values = None if torch.compiler.is_compiling() else values_of(boxes, torch.float64)
    if values is None:
        return
    good = np.isfinite(values).all(-1) & (values[..., 2:] >= values[..., :2]).all(-1)
    if not good.all():
        at = tuple(np.argwhere(~good)[0])
        row: list[float] = values[at].tolist()
        expected = "finite numbers" if not np.isfinite(row).all() else "x0 <= x1 and y0 <= y1"
        raise UserError(f"{where}[{int(at[-1])}]", expected, row)


def _split(maps: Tensor, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
    """Group rows ``[K, 5]`` of map index and box by map; return the new index of each row too, or None."""
    count, values = maps.shape[0], values_of(rows.detach(), torch.float64)
    if values is None or values.ndim != 2:
        # Under vmap, the number of boxes per map would differ between samples.
        hint = "Pass a sequence of tensors [N, 4], one per map."
        raise UserError("regions", "concrete map indices", "a mapped or abstract tensor", hint)
    index = values[:, 0]
    bad = ~((index >= 0) & (index < count) & (index == np.floor(index)))
    if bad.any():
        at = int(bad.argmax())
        raise UserError(f"regions[{at}][0]", f"the index of a map, 0 to {count - 1}", index[at])
    owners = index.astype(np.int64)
    lengths: list[int] = np.bincount(owners, minlength=count).tolist()
    if (owners[1:] >= owners[:-1]).all():
        return list(rows[:, 1:].split(lengths)), None
    order = np.argsort(owners, kind="stable")
    inverse = torch.from_numpy(np.argsort(order, kind="stable")).to(maps.device)
    return list(rows[torch.from_numpy(order).to(rows.device), 1:].split(lengths)), inverse


def check_head(maps: Tensor, weight: object, bias: object, levels: list[int]) -> tuple[Tensor, Tensor | None]:
    """Validate weight ``[K, C * bins]`` and bias ``[K]`` of a linear head."""
    expected = f"a tensor [K, {maps.shape[1] * count_bins(levels)}]"
    given = _as_tensor("weight", weight, expected)
    if given.ndim != 2 or given.shape[1] != maps.shape[1] * count_bins(levels):
        raise UserError("weight", expected, f"shape {list(given.shape)}")
    if given.dtype not in _DTYPES or given.device != maps.device:
        expected = f"float32, float16, bfloat16 or float64 on {maps.device}, as the maps"
        raise UserError("weight", expected, f"{given.dtype} on {given.device}")
    if bias is None:
        return given, None
    added = _as_tensor("bias", bias, f"a tensor [{given.shape[0]}]")
    if added.shape != given.shape[:1]:
        raise UserError("bias", f"a tensor [{given.shape[0]}]", f"shape {list(added.shape)}")
    if added.dtype != given.dtype or added.device != given.device:
        expected = f"{given.dtype} on {given.device}, as weight"
        raise UserError("bias", expected, f"{added.dtype} on {added.device}")
    return given, added

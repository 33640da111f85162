"""Validation and conversion of the arguments of `FeatureExtractor`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sppnet.backbones.base import LayerInfo
from sppnet.data import ImageSource
from sppnet.errors import UserError
from sppnet.ops.bins import check_levels, check_mode
from sppnet.structures import Boxes, FeatureMaps

_DTYPES = ("float32", "float16")
_SMALLEST_SCALE = 16


def check_options(
    levels: Sequence[int], mode: str, scales: Sequence[int] | None, long_side: int | None, dtype: str
) -> None:
    """Raise `UserError` for the first option that is out of range."""
    check_levels(levels)
    check_mode(mode)
    if scales is not None and not (len(scales) and all(s == 0 or s >= _SMALLEST_SCALE for s in scales)):
        expected = f"None, or short sides of 0 (size of the image) or at least {_SMALLEST_SCALE} pixels"
        raise UserError("scales", expected, scales)
    if long_side is not None and long_side < _SMALLEST_SCALE:
        raise UserError("long_side", f"None, or at least {_SMALLEST_SCALE} pixels", long_side)
    if dtype not in _DTYPES:
        raise UserError("dtype", " or ".join(_DTYPES), repr(dtype))


def feature_names(layers: Sequence[LayerInfo], levels: Sequence[int], scales: Sequence[int]) -> NDArray[Any]:
    """Return one name per feature of an image, in the order of `image_rows`, scale by scale."""
    parts = [f"{scale or 'own'}:" for scale in scales] if len(scales) > 1 else [""]
    names = [
        f"{info.name}:{part}{n}x{n}:c{channel}:{y},{x}"
        for part in parts
        for info in layers
        for n in levels
        for channel in range(info.channels)
        for y in range(n)
        for x in range(n)
    ]
    return np.array(names, dtype=object)


def checked_sources(sources: Any) -> Iterable[ImageSource]:
    """Return ``sources``; raise `UserError` if it is a single image or not iterable."""
    single = isinstance(sources, (str, bytes, os.PathLike, Image.Image))
    if isinstance(sources, (np.ndarray, Tensor)):
        single = sources.ndim in (2, 3) and sources.dtype != object
    if single or not isinstance(sources, Iterable):
        got = repr(sources) if isinstance(sources, (str, os.PathLike)) else f"one {type(sources).__name__}"
        raise UserError("sources", "a list of images", got, "Put a single image into a list: [image].")
    return cast("Iterable[ImageSource]", sources)


def column(X: Any) -> Any:
    """Return the sources of a series, a data frame or an array ``[N, 1]`` as a list of N."""
    values = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(values, list) and values and all(isinstance(row, (list, tuple)) for row in values):
        values = np.array(values, dtype=object)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "OUS":
        return values
    if values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
        return values.ravel().tolist()
    raise UserError("X", "one column of image sources", f"an array {list(values.shape)}")


def checked_boxes(boxes: Any, maps: FeatureMaps) -> Boxes:
    """Convert boxes ``[M, 4]`` of any type and clip them to the image; see `FeatureExtractor.boxes`."""
    size = maps.image
    try:
        given = boxes if isinstance(boxes, Tensor) else torch.as_tensor(np.asarray(boxes, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise UserError("boxes", "numbers [M, 4], (x0, y0, x1, y1) in pixels", error) from error
    xyxy = given.detach().to("cpu", torch.float32)
    if xyxy.numel() == 0:
        xyxy = xyxy.reshape(-1, 4)
    if xyxy.ndim != 2 or xyxy.shape[1] != 4:
        raise UserError("boxes", "numbers [M, 4], (x0, y0, x1, y1) in pixels", f"shape {list(xyxy.shape)}")
    limit = xyxy.new_tensor([size.width, size.height])
    finite = torch.isfinite(xyxy).all(1)
    inside = (xyxy[:, :2] < limit).all(1) & (xyxy[:, 2:] > 0).all(1)
    right = finite & inside & (xyxy[:, 2:] > xyxy[:, :2]).all(1)
    if not bool(right.all()):
        first = int((~right).nonzero()[0, 0])
        expected = (
            f"finite x0 < x1 and y0 < y1 inside the image of {size.width} x {size.height} (width x height)"
        )
        raise UserError(f"boxes[{first}]", expected, xyxy[first].tolist())
    return Boxes(xyxy, size).clip()


def converted(features: NDArray[np.float32], dtype: str) -> NDArray[np.floating[Any]]:
    """Convert features to a dtype by name; raise `UserError` for finite values out of its range."""
    if dtype == "float32":
        return features
    with np.errstate(over="ignore"):
        halves = features.astype(np.float16)
    if not np.array_equal(np.isfinite(halves), np.isfinite(features)):
        largest = float(np.abs(features[np.isfinite(features)]).max())
        raise UserError(
            "dtype", "float32 for features beyond 65504", f"float16 and a feature of {largest:.6g}"
        )
    return halves

"""Pyramid pooling of crops by torch's own adaptive pooling, for comparison in any mode of derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, linear

from sppnet.ops import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool

Pool = Callable[[Tensor], Tensor]


def pool_crop(crop: Tensor, levels: Sequence[int], mode: str) -> Tensor:
    """The feature vector ``[1, C * bins]`` of a map ``[C, H, W]``."""
    pool = adaptive_max_pool2d if mode == "max" else adaptive_avg_pool2d
    return torch.cat([pool(crop[None], n).flatten(1) for n in levels], 1)


def pool_crops(
    maps: Sequence[Tensor] | Tensor, regions: Sequence[Tensor], levels: Sequence[int], mode: str
) -> Tensor:
    """The feature vectors ``[N, C * bins]`` of regions."""
    return torch.cat(
        [
            pool_crop(one[:, y0:y1, x0:x1], levels, mode)
            for one, boxes in zip(maps, regions, strict=True)
            for x0, y0, x1, y1 in boxes.tolist()
        ]
    )


@dataclass(frozen=True)
class Operation:
    """One of the pooling operations as a function of the maps ``[B, C, H, W]`` alone, and its oracle."""

    name: str
    ours: Pool
    oracle: Pool


def operations(
    shape: Sequence[int], regions: list[Tensor], levels: Sequence[int], mode: str
) -> list[Operation]:
    """Whole maps, lists of maps of two sizes, regions and scores, for maps of a shape."""
    batch, channels, height, width = shape
    whole = [torch.tensor([[0, 0, width, height]])] * batch
    smaller = [one.clone() for one in whole]
    smaller[0][0, 3] = -(-height // 2)
    bins = sum(n * n for n in levels)
    weight = torch.randn(3, channels * bins, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def in_list(maps: Tensor) -> list[Tensor]:
        return [maps[0, :, : -(-height // 2)], *maps[1:]]

    def head(rows: Tensor) -> Tensor:
        return linear(rows, weight.to(rows.dtype))

    return [
        Operation(
            "maps",
            lambda m: spatial_pyramid_pool(m, levels, mode),
            lambda m: pool_crops(m, whole, levels, mode),
        ),
        Operation(
            "list",
            lambda m: spatial_pyramid_pool(in_list(m), levels, mode),
            lambda m: pool_crops(m, smaller, levels, mode),
        ),
        Operation(
            "regions",
            lambda m: region_pyramid_pool(m, regions, levels, mode),
            lambda m: pool_crops(m, regions, levels, mode),
        ),
        Operation(
            "scores",
            lambda m: region_pyramid_scores(m, regions, weight.to(m.dtype), None, levels, mode),
            lambda m: head(pool_crops(m, regions, levels, mode)),
        ),
    ]

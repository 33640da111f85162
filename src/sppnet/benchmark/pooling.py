"""``sppnet benchmark pooling``: time of pyramid pooling compared with torchvision and torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, linear

from sppnet.benchmark.measure import (
    cuda_medians,
    cuda_seconds,
    keep_memory,
    machine,
    medians,
    peak_growth_mb,
)
from sppnet.benchmark.pooling_growth import draw_growth, measure_growth
from sppnet.ops import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool

LEVELS = (6, 3, 2, 1)
_COARSE = (3, 2, 1)
_PEER = "four torchvision roi_pool"
_Effort = tuple[int, float]
"""Minimum number of runs and minimum seconds."""


def random_regions(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Draw random regions, int64 ``[N, 4]``, with corners uniform over the map."""
    draw = torch.Generator().manual_seed(seed)
    x = (torch.rand(count, 2, generator=draw) * width).long().sort(1).values
    y = (torch.rand(count, 2, generator=draw) * height).long().sort(1).values
    return torch.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], 1)


def _adaptive(maps: Tensor) -> Tensor:
    return torch.cat([adaptive_max_pool2d(maps, n).flatten(1) for n in LEVELS], 1)


def _roi_pools(maps: Tensor, regions: Tensor) -> Tensor:
    from torchvision.ops import roi_pool

    # The last cell of a region is inclusive in roi_pool.
    boxes = [torch.cat([regions[:, :2], regions[:, 2:] - 1], 1).to(maps.dtype)]
    return torch.cat([roi_pool(maps, boxes, n).flatten(1) for n in LEVELS], 1)


def _with_backward(work: Callable[[], Tensor], leaf: Tensor) -> Callable[[], None]:
    def both() -> None:
        leaf.grad = None
        work().sum().backward()

    return both


def _row(
    work: str, ours: Callable[[], object], peer: str, peer_work: Callable[[], object], effort: _Effort
) -> dict[str, object]:
    return _compared(work, peer, medians(ours, peer_work, *effort))


def _compared(work: str, peer: str, seconds: tuple[float, float]) -> dict[str, object]:
    ours_s, peer_s = seconds
    return {"work": work, "ours_s": ours_s, "peer": peer, "peer_s": peer_s, "ratio": peer_s / ours_s}


def _region_rows(count: int, effort: _Effort) -> tuple[list[dict[str, object]], float]:
    """Compare pooling of regions; return also its time relative to that of writing the output."""
    torch.manual_seed(0)
    maps, regions = torch.randn(1, 256, 43, 57), random_regions(count, 43, 57)
    half = maps.bfloat16()
    assert torch.equal(region_pyramid_pool(maps, [regions], LEVELS), _roi_pools(maps, regions))
    exact = region_pyramid_pool(half.float(), [regions], LEVELS)
    assert torch.equal(region_pyramid_pool(half, [regions], LEVELS).float(), exact)
    name = f"{count} regions on 256x43x57, levels 6,3,2,1"

    def pool() -> Tensor:
        return region_pyramid_pool(maps, [regions], LEVELS)

    rows = [
        _row(f"{name}, float32", pool, _PEER, lambda: _roi_pools(maps, regions), effort),
        _row(
            f"{name}, bfloat16",
            lambda: region_pyramid_pool(half, [regions], LEVELS),
            "ours in float32",
            pool,
            effort,
        ),
    ]
    out = pool()
    pooled, filled = medians(pool, lambda: out.fill_(1.0), *effort)
    leaf = maps.clone().requires_grad_()
    rows.append(
        _row(
            f"{name}, float32, forward and backward",
            _with_backward(lambda: region_pyramid_pool(leaf, [regions], LEVELS), leaf),
            f"{_PEER}, forward and backward",
            _with_backward(lambda: _roi_pools(leaf, regions), leaf),
            effort,
        )
    )
    return rows, pooled / filled


def _map_rows(effort: _Effort) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for layout, form in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
        maps = torch.randn(64, 256, 13, 13).contiguous(memory_format=form)
        assert torch.equal(spatial_pyramid_pool(maps, LEVELS), _adaptive(maps))
        leaf = maps.clone().requires_grad_()
        name = f"64x256x13x13 whole maps, {layout}"
        peer = "concatenated adaptive_max_pool2d"
        rows.append(
            _row(
                name,
                lambda maps=maps: spatial_pyramid_pool(maps, LEVELS),
                peer,
                lambda maps=maps: _adaptive(maps),
                effort,
            )
        )
        rows.append(
            _row(
                f"{name}, forward and backward",
                _with_backward(lambda leaf=leaf: spatial_pyramid_pool(leaf, LEVELS), leaf),
                peer,
                _with_backward(lambda leaf=leaf: _adaptive(leaf), leaf),
                effort,
            )
        )
    sizes = torch.randint(8, 40, (64, 2), generator=torch.Generator().manual_seed(1)).tolist()
    several = [torch.randn(256, height, width) for height, width in sizes]

    def loop() -> Tensor:
        return torch.cat([_adaptive(one[None]) for one in several])

    assert torch.equal(spatial_pyramid_pool(several, LEVELS), loop())
    rows.append(
        _row(
            "64 maps of 256 channels, 64 sizes, one call",
            lambda: spatial_pyramid_pool(several, LEVELS),
            "a loop of adaptive pools",
            loop,
            effort,
        )
    )
    return rows


def _score_work(count: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Create functions that score windows for 20 classes: fused, and by pooling and a matrix product."""
    torch.manual_seed(0)
    maps, regions = torch.randn(1, 512, 60, 80), random_regions(count, 60, 80)
    weight, bias = torch.randn(20, 512 * 14) / 100, torch.randn(20)

    def fused() -> Tensor:
        return region_pyramid_scores(maps, [regions], weight, bias, _COARSE)

    def two_steps() -> Tensor:
        return linear(region_pyramid_pool(maps, [regions], _COARSE), weight, bias)

    return fused, two_steps


def prepare_fused() -> Callable[[], Tensor]:
    """Return the fused scoring of 10,000 windows, after compilation and a warm-up."""
    _score_work(200)[0]()
    return _score_work(10000)[0]


def prepare_two_steps() -> Callable[[], Tensor]:
    """Return pooling and scoring of 10,000 windows in two steps, after compilation and a warm-up."""
    _score_work(200)[1]()
    return _score_work(10000)[1]


def _score_row(count: int, effort: _Effort) -> dict[str, object]:
    fused, two_steps = _score_work(count)
    torch.testing.assert_close(fused(), two_steps(), rtol=1e-4, atol=1e-3)
    name = f"{count} windows on 512x60x80, levels 3,2,1, scored for 20 classes"
    row = _row(name, fused, "pooling, then a matrix product", two_steps, effort)
    if count == 10000:
        row["ours_peak_mb"] = peak_growth_mb("sppnet.benchmark.pooling:prepare_fused")
        row["peer_peak_mb"] = peak_growth_mb("sppnet.benchmark.pooling:prepare_two_steps")
    return row


def _copy_bandwidth(runs: int) -> float:
    """Measure the bytes per second of copying a gigabyte on the CUDA device."""
    source = torch.empty(2**30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)

    def copy() -> Tensor:
        return target.copy_(source)

    return source.numel() / cuda_medians(copy, copy, runs, 1)[0]


def _gpu_rows(count: int, runs: int) -> list[dict[str, object]]:
    """Compare pooling of regions on the CUDA device with the peer, and its bandwidth with that of a copy.

    Seconds are means of ten consecutive calls. ``alone_ratio`` compares single synchronised calls on an
    idle device, ``device_ratio`` the work of the device without launches.
    """
    regions, height, width = random_regions(count, 43, 57).cuda(), 43, 57
    copied = _copy_bandwidth(runs)
    name = f"{count} regions on 256x{height}x{width}, levels 6,3,2,1"
    rows: list[dict[str, object]] = []
    # torchvision does not support bfloat16 on CUDA; float16 has the same size.
    for dtype, peer_dtype in ((torch.float32, torch.float32), (torch.bfloat16, torch.float16)):
        torch.manual_seed(0)
        maps = torch.randn(1, 256, height, width, device="cuda").to(dtype)
        like = maps.to(peer_dtype)

        def pool(maps: Tensor = maps) -> Tensor:
            return region_pyramid_pool(maps, [regions], LEVELS)

        def peer(maps: Tensor = like) -> Tensor:
            return _roi_pools(maps, regions)

        out = pool()
        assert torch.equal(out.float(), _roi_pools(maps.float(), regions))
        row = _gpu_row(f"{name}, {dtype} on the GPU", pool, f"{_PEER}, {peer_dtype}", peer, runs)
        ours_device_s, peer_device_s = cuda_seconds(pool, runs), cuda_seconds(peer, runs)
        speed = out.numel() * out.element_size() / ours_device_s
        row |= {
            "device_s": ours_device_s,
            "peer_device_s": peer_device_s,
            "device_ratio": peer_device_s / ours_device_s,
            "of_copy_bandwidth": speed / copied,
            "of_copy_bandwidth_read_and_written": speed / (2 * copied),
        }
        rows.append(row)
    leaf = torch.randn(1, 256, height, width, device="cuda", requires_grad=True)
    rows.append(
        _gpu_row(
            f"{name}, float32 on the GPU, forward and backward",
            _with_backward(lambda: region_pyramid_pool(leaf, [regions], LEVELS), leaf),
            f"{_PEER}, forward and backward",
            _with_backward(lambda: _roi_pools(leaf, regions), leaf),
            runs,
        )
    )
    return rows


def _gpu_row(
    work: str, ours: Callable[[], object], peer: str, peer_work: Callable[[], object], runs: int
) -> dict[str, object]:
    alone_s, peer_alone_s = cuda_medians(ours, peer_work, runs, 1)
    consecutive = _compared(work, peer, cuda_medians(ours, peer_work, runs, 10))
    return consecutive | {"alone_ratio": peer_alone_s / alone_s}


def run(quick: bool = False, plot: Path | None = None) -> dict[str, Any]:
    """Time pyramid pooling and its peers, after their outputs have been compared.

    The process reuses freed memory from then on, see `keep_memory`.

    Args:
        quick: a tenth of the work and three runs instead of at least seven; for tests, not for reports.
        plot: PNG file for a plot of time over output size, if any.

    Returns:
        ``{"machine", "rows": [{"work", "ours_s", "peer", "peer_s", "ratio"}], "floor_ratio", "growth"}``,
        with medians in seconds and ratio = peer_s / ours_s. ``floor_ratio`` is the time of the first row
        relative to that of writing its output. Some rows also have peak memory in megabytes or fractions
        of the bandwidth. ``growth`` has ``{"growing", "regions", "channels", "bins", "map", "output_mb",
        "ours_s"}`` for regions of 14x14 cells on a square map of ``map`` cells per side.

    Raises:
        MissingExtraError: a plot is requested and matplotlib is not installed.
    """
    memory_kept = keep_memory()
    runs, divisor = (3, 10) if quick else (7, 1)
    effort = (runs, 0.0 if quick else 0.5)
    rows, floor = _region_rows(2000 // divisor, effort)
    rows += _map_rows(effort)
    rows.append(_score_row(10000 // divisor, effort))
    if torch.cuda.is_available():
        rows += _gpu_rows(2000 // divisor, runs)
    growth = measure_growth(runs, 4 if quick else 1)
    if plot is not None:
        draw_growth(plot, growth)
    return {
        "machine": {**machine(), "memory_kept": memory_kept},
        "rows": rows,
        "floor_ratio": floor,
        "growth": growth,
    }

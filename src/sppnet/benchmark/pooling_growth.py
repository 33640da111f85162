"""Time of pyramid pooling by number of regions, channels and bins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sppnet.benchmark.measure import medians
from sppnet.ops import region_pyramid_pool
from sppnet.ops.pyramid import LEVELS


def measure_growth(runs: int, divisor: int) -> list[dict[str, Any]]:
    """Measure seconds by number of regions on a small and a large map, by channels and by bins."""
    count, channels, levels = 1000 // divisor, 256, LEVELS
    series: dict[str, list[tuple[int, int, Sequence[int], int]]] = {
        "regions": [(count * i // 4, channels, levels, 28) for i in (1, 2, 4, 8, 16)],
        "regions, large map": [(count * i // 4, channels, levels, 112) for i in (1, 2, 4, 8, 16)],
        "channels": [(count, channels * i // 4, levels, 28) for i in (1, 2, 4, 8, 16)],
        "bins": [(count, channels, some, 28) for some in ((3, 2), LEVELS, (10,), (14,))],
    }
    return [_growth_row(name, *work, runs) for name, several in series.items() for work in several]


def _growth_row(
    growing: str, count: int, channels: int, levels: Sequence[int], side: int, runs: int
) -> dict[str, Any]:
    torch.manual_seed(0)
    maps, corners = torch.randn(1, channels, side, side), torch.randint(0, side - 14 + 1, (count, 2))
    regions = torch.cat([corners, corners + 14], 1)
    seconds, _ = medians(lambda: region_pyramid_pool(maps, [regions], levels), lambda: None, runs)
    bins = sum(n * n for n in levels)
    return {
        "growing": growing,
        "regions": count,
        "channels": channels,
        "bins": bins,
        "map": side,
        "output_mb": count * channels * bins * 4 / 2**20,
        "ours_s": seconds,
    }


def draw_growth(path: Path, growth: Sequence[dict[str, Any]]) -> None:
    """Plot the time over the size of the output and write a PNG file."""
    from sppnet.draw import plot_lines, save_image

    lines: dict[str, tuple[list[float], list[float]]] = {}
    for row in growth:
        name = f"{row['growing']} ({row['map']}x{row['map']})"
        output, milliseconds = lines.setdefault(name, ([], []))
        output.append(row["output_mb"])
        milliseconds.append(1000 * row["ours_s"])
    title = "Pooling of regions of 14x14 cells, by varied quantity (map)"
    save_image(path, plot_lines(lines, title, "output, MB", "time, ms"))

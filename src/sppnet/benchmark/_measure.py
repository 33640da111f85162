"""Timing two ways of doing the same work in turn, and what machine it was done on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable

import torch


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def medians(ours: Callable[[], object], peer: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median seconds of each, taken in turn so that the machine's moods meet both; one warm-up each."""
    ours()
    peer()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for seconds, work in zip(times, (ours, peer), strict=True):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])

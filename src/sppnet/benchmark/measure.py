"""Timing two ways of doing the same work in turn, and what machine it was done on."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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


def keep_memory() -> bool:
    """Have the C library keep, from now on, what this process frees.

    Else large tensors are given back to the system and fetched again at each call: page after page, with
    zeros in it. That is no work of either side, comes and goes with the order of the calls, and what one
    side gives back was seen to slow down the other, which had given back nothing.

    Returns:
        False where the C library is not glibc; then nothing has changed.
    """
    if sys.platform != "linux":
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    trim_threshold, mmap_max = -1, -4
    return bool(set_option(trim_threshold, 2**31 - 1)) and bool(set_option(mmap_max, 0))


def medians(
    ours: Callable[[], object], peer: Callable[[], object], runs: int, seconds: float = 0.0
) -> tuple[float, float]:
    """Median seconds of each, taken in turn so that the machine's moods meet both.

    Each timed call follows an untimed one of the same work: what the other has left in the caches is no part
    of either. There are ``runs`` of each, and more until ``seconds`` have passed: others on the machine
    disturb short work for longer than a few calls take.
    """
    times: tuple[list[float], list[float]] = ([], [])
    begin = time.perf_counter()
    while len(times[0]) < runs or time.perf_counter() < begin + seconds:
        for mine, work in zip(times, (ours, peer), strict=True):
            work()
            start = time.perf_counter()
            work()
            mine.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def cuda_medians(
    ours: Callable[[], object], peer: Callable[[], object], runs: int, calls: int
) -> tuple[float, float]:
    """As `medians`, by the clock of the current CUDA device, with what it takes to launch.

    Each of the ``runs`` is the mean of as many ``calls`` in a row, before which the device is idle.
    """
    for work in (ours, peer):
        for _ in range(3):
            work()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for seconds, work in zip(times, (ours, peer), strict=True):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            for _ in range(calls):
                work()
            end.record()
            torch.cuda.synchronize()
            seconds.append(begin.elapsed_time(end) / 1000 / calls)
    return statistics.median(times[0]), statistics.median(times[1])


def cuda_seconds(work: Callable[[], object], runs: int) -> float:
    """Median seconds that the current CUDA device works for one call, without the launches.

    Eight calls, each with an output of its own, are captured in a graph, which is replayed.
    """
    for _ in range(3):
        work()
    graph, calls = torch.cuda.CUDAGraph(), 8
    with torch.cuda.graph(graph):
        kept = [work() for _ in range(calls)]
    times: list[float] = []
    for _ in range(runs + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1000 / len(kept))
    return statistics.median(times[1:])


def peak_growth_mb(call: str) -> float | None:
    """Megabytes by which a process's memory grows at its peak while it evaluates ``call``.

    Args:
        call: names a function of no arguments, ``"module:function"``, that prepares some work and returns it
            as another one; only that second one is measured, in a fresh process.

    Returns:
        None where the system does not tell (elsewhere than on Linux).
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    module, name = call.split(":")
    program = f"from sppnet.benchmark.measure import grow; from {module} import {name}; print(grow({name}()))"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(said.stdout)


def grow(work: Callable[[], object]) -> float:
    """The growth of this process's memory at its peak during ``work``, in megabytes."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what there is now
    before = _status_mb("VmHWM")
    work()
    return _status_mb("VmHWM") - before


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

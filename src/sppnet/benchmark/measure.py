"""Interleaved timing of two implementations, peak memory and machine information."""

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
    """Describe the machine of the measurements."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def keep_memory() -> bool:
    """Set the C library to reuse freed memory instead of returning it to the system, from now on.

    Otherwise, large tensors are returned and allocated again in each call, which includes page faults and
    clearing of pages. This time depends on the order of the calls rather than on the implementations, and
    affects both of them.

    Returns:
        False if the C library is not glibc; then nothing changes.
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
    """Measure the median seconds of two functions.

    Runs are interleaved so that background load affects both equally. Each timed call follows an untimed
    call of the same function, so that the contents of the caches do not depend on the other function.

    Args:
        ours: the first function.
        peer: the second function.
        runs: minimum number of runs of each.
        seconds: minimum total duration; background load often lasts longer than a few short calls.

    Returns:
        The medians of both.
    """
    times: tuple[list[float], list[float]] = ([], [])
    begin = time.perf_counter()
    while len(times[0]) < runs or time.perf_counter() < begin + seconds:
        for own, work in zip(times, (ours, peer), strict=True):
            work()
            start = time.perf_counter()
            work()
            own.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def cuda_medians(
    ours: Callable[[], object], peer: Callable[[], object], runs: int, calls: int
) -> tuple[float, float]:
    """Measure as `medians`, with events of the current CUDA device and including launches.

    Each of the ``runs`` is the mean of a number of consecutive ``calls`` that start on an idle device.
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
    """Measure the median seconds of one call on the current CUDA device, without launches.

    Eight calls, each with its own output, are captured in a graph, which is replayed.
    """
    for _ in range(3):
        work()
    graph, calls = torch.cuda.CUDAGraph(), 8
    with torch.cuda.graph(graph):
        outputs = [work() for _ in range(calls)]
    times: list[float] = []
    for _ in range(runs + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1000 / len(outputs))
    return statistics.median(times[1:])


def peak_growth_mb(call: str) -> float | None:
    """Measure the increase of the peak memory of a new process by a function.

    Args:
        call: ``"module:function"``, a function without arguments that prepares the work and returns the
            function to measure.

    Returns:
        Megabytes, or None on systems other than Linux.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    module, name = call.split(":")
    program = f"from sppnet.benchmark.measure import grow; from {module} import {name}; print(grow({name}()))"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(said.stdout)


def grow(work: Callable[[], object]) -> float:
    """Measure the increase of the peak memory of this process by ``work``, in megabytes."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current memory
    before = _status_mb("VmHWM")
    work()
    return _status_mb("VmHWM") - before


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

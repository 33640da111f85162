"""Installed packages, device and kernels in use, and a check of the results of pooling."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch

from sppnet.ops import region_pyramid_pool, spatial_pyramid_pool

__all__ = ["inspect_installation"]

_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "neon", "asimd")


def inspect_installation() -> dict[str, object]:
    """Return the output of ``sppnet check``, with ``"ok"``, whether pooling equals that of PyTorch."""
    wrong = _wrong_pools()
    return {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "packages": _packages(),
        "device": _device(),
        "threads": torch.get_num_threads(),
        "cpu": _cpu_flags(),
        "kernels": _kernels(),
        "optional": _optional(),
        "pooling": f"{len(wrong)} checks failed: {wrong[0]}" if wrong else "equals adaptive_max_pool2d",
        "ok": not wrong,
    }


def _requirements() -> list[tuple[str, str | None]]:
    """Return name and extra of every requirement of the package."""
    found: list[tuple[str, str | None]] = []
    for line in requires("sppnet") or []:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        assert name is not None, line
        found.append((name[0], extra[1] if extra else None))
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _packages() -> dict[str, str]:
    needed = [name for name, extra in _requirements() if extra is None]
    return {name: _version(name) or "missing" for name in ["sppnet", *needed]}


def _optional() -> dict[str, str]:
    """Return each extra with the versions of its packages, or the command that installs it."""
    extras: dict[str, list[str]] = {}
    for name, extra in _requirements():
        if extra is not None and extra != "dev":
            extras.setdefault(extra, []).append(name)
    return {extra: _state(extra, names) for extra, names in extras.items()}


def _state(extra: str, names: list[str]) -> str:
    missing = [name for name in names if _version(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}; pip install 'sppnet[{extra}]'"
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _device() -> str:
    """Return the device that ``--device auto`` selects."""
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _cpu_flags() -> str:
    listing = Path("/proc/cpuinfo")
    words = set(listing.read_text(encoding="utf-8").split()) if listing.exists() else set[str]()
    known = [flag for flag in _CPU_FLAGS if flag in words]
    return f"{os.cpu_count()} cores, " + (" ".join(known) or torch.backends.cpu.get_cpu_capability())


def _kernels() -> dict[str, str]:
    triton = importlib.util.find_spec("triton") is not None
    if not torch.cuda.is_available():
        gpu = "installed, not used: no GPU" if triton else "not installed, no GPU"
    else:
        gpu = f"installed ({_version('triton')})" if triton else "not installed"
    return {"cpu": f"numba {_version('numba')}", "triton": gpu}


def _wrong_pools() -> list[str]:
    """List the cases in which pooling differs from PyTorch: odd sizes with negative values."""
    wrong: list[str] = []
    draw = torch.Generator().manual_seed(0)
    levels = (6, 3, 2, 1)
    for height, width in ((1, 1), (5, 9), (13, 13), (10, 7)):
        maps = torch.randn(2, 3, height, width, generator=draw) - 2
        if not torch.equal(spatial_pyramid_pool(maps, levels), _expected(maps, levels)):
            wrong.append(f"whole map {height} x {width}")
        x0, y0 = width // 3, height // 3
        region = torch.tensor([[x0, y0, width, height]])
        pooled = region_pyramid_pool(maps, [region, region], levels)
        if not torch.equal(pooled, _expected(maps[..., y0:, x0:], levels)):
            wrong.append(f"region of a map {height} x {width}")
    return wrong


def _expected(maps: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    pools = [torch.nn.functional.adaptive_max_pool2d(maps, n).flatten(1) for n in levels]
    return torch.cat(pools, 1)

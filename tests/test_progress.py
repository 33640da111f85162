from __future__ import annotations

import builtins
import ctypes
import importlib
import sys
from types import ModuleType

import pytest

from sppnet import progress


def test_peak_memory_includes_allocated_memory() -> None:
    before = progress.peak_memory_mb()
    if before is None:
        pytest.skip("the system does not report the peak memory")
    block = bytearray(64 * 2**20)
    block[:: 2**12] = b"x" * len(block[:: 2**12])
    assert progress.peak_memory_mb() >= before
    assert progress.peak_memory_mb() > 60


def test_progress_works_without_the_resource_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no module `resource`."""
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    reloaded = importlib.reload(progress)
    try:
        assert reloaded.peak_memory_mb() is None
        assert reloaded.Stopwatch().seconds()["total"] >= 0
    finally:
        monkeypatch.undo()
        importlib.reload(progress)


def test_peak_working_set_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        class GetCurrentProcess:
            restype = None

            def __call__(self) -> int:
                return 1

        class K32GetProcessMemoryInfo:
            argtypes = None

            def __call__(self, process: int, counters: object, size: int) -> int:
                assert size == ctypes.sizeof(counters._obj)
                counters._obj.peak_working_set = 3 * 2**20
                return 1

    kernel = Kernel()
    kernel.GetCurrentProcess = Kernel.GetCurrentProcess()
    kernel.K32GetProcessMemoryInfo = Kernel.K32GetProcessMemoryInfo()
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(ctypes, "WinDLL", lambda name: kernel, raising=False)
    assert progress.peak_memory_mb() == 3.0


def test_peak_memory_on_macos_is_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert progress.peak_memory_mb() == round(usage.ru_maxrss / 2**20, 1)


def test_modules_import_without_posix_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules import on systems without `resource`, `fcntl`, `pwd` and `termios`."""
    posix = {"resource", "fcntl", "pwd", "grp", "termios", "pty"}
    real = builtins.__import__

    def windows(name: str, *rest: object) -> object:
        caller = rest[0].get("__name__", "") if rest and isinstance(rest[0], dict) else ""
        if name in posix and caller.startswith("sppnet"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    names = ("sppnet.progress", "sppnet.files", "sppnet.runs", "sppnet.ops.cpu.threads", "sppnet.cli.outputs")
    loaded = {name: sys.modules.pop(name, None) for name in ("sppnet.locks", *names)}
    builtins.__import__ = windows
    try:
        with monkeypatch.context() as patch:  # locks chooses its implementation by the platform
            patch.setattr(sys, "platform", "win32")
            patch.setitem(sys.modules, "msvcrt", ModuleType("msvcrt"))
            importlib.import_module("sppnet.locks")
        for name in names:
            importlib.import_module(name)
    finally:
        builtins.__import__ = real
        for name in loaded:
            sys.modules.pop(name, None)
        sys.modules.update({name: module for name, module in loaded.items() if module is not None})

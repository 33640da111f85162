from __future__ import annotations

import builtins
import ctypes
import importlib
import sys
from types import ModuleType

import pytest

from sppnet import progress


def test_peak_memory_grows_with_what_is_held() -> None:
    before = progress.peak_memory_mb()
    if before is None:
        pytest.skip("this system does not tell")
    held = bytearray(64 * 2**20)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    assert progress.peak_memory_mb() >= before
    assert progress.peak_memory_mb() > 60


def test_without_the_resource_module_everything_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no module `resource`."""
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    again = importlib.reload(progress)
    try:
        assert again.peak_memory_mb() is None
        assert again.Stopwatch().seconds()["total"] >= 0
    finally:
        monkeypatch.undo()
        importlib.reload(progress)


def test_windows_tells_its_peak_working_set(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_macos_counts_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert progress.peak_memory_mb() == round(usage.ru_maxrss / 2**20, 1)


def test_no_module_imports_what_only_posix_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules import on Windows, where `resource`, `fcntl`, `pwd` and `termios` are missing."""
    posix = {"resource", "fcntl", "pwd", "grp", "termios", "pty"}
    names = (
        "sppnet.progress", "sppnet.files", "sppnet.locks", "sppnet.runs", "sppnet.ops.cpu.threads",
        "sppnet.cli.outputs",
    )  # fmt: skip
    for name in names:  # and what they import from other packages, which looks at the platform too
        module = importlib.import_module(name)
        parent, _, own = name.rpartition(".")
        monkeypatch.setattr(sys.modules[parent], own, module)  # both are put back after the test
        monkeypatch.setitem(sys.modules, name, module)
    real = builtins.__import__

    def windows(name: str, *rest: object) -> object:
        caller = rest[0].get("__name__", "") if rest and isinstance(rest[0], dict) else ""
        if name in posix and caller.startswith("sppnet"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    for name in names:
        del sys.modules[name]
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", ModuleType("msvcrt"))
    monkeypatch.setattr(builtins, "__import__", windows)
    for name in names:
        importlib.import_module(name)

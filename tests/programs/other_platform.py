"""Fit, save, load and predict as on another system: ``sys.argv[1]`` is ``win32`` or ``darwin``.

What only Linux or POSIX has is taken away before the package is imported: modules, functions, flags, and the
OpenMP library of torch that kernels otherwise run on.
"""

from __future__ import annotations

import builtins
import importlib
import mmap
import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import fcntl  # isort: skip
import numba
import numpy as np
import PIL.Image
import safetensors.torch
import scipy.io
import sklearn.svm
import tomli_w
import torch
import tyro

PLATFORM = sys.argv[1]
USED = (numba, PIL.Image, safetensors.torch, scipy.io, sklearn.svm, tomli_w, tyro)  # loaded as what they are
POSIX_MODULES = {"resource", "fcntl", "pwd", "grp", "termios", "pty"}
NOT_IMPORTED = ("sppnet.ops.gpu", "sppnet.serve", "sppnet.export", "sppnet.__main__")  # need an extra, or run
LINUX_ONLY = {
    os: (
        "fork", "register_at_fork", "RTLD_NOLOAD", "sched_getaffinity", "pread", "O_NOFOLLOW", "O_NONBLOCK",
        "O_CLOEXEC", "O_DIRECTORY", "mkfifo", "posix_fadvise", "memfd_create",
    ),
    mmap: ("MADV_FREE", "MADV_HUGEPAGE", "MAP_POPULATE"),
}  # fmt: skip


def stand_in() -> ModuleType:
    """Windows' module for locks, which here locks as Linux does."""
    module: Any = ModuleType("msvcrt")
    module.LK_NBLCK, module.LK_UNLCK = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
    module.locking = lambda descriptor, mode, count: fcntl.flock(descriptor, mode)
    return module


def become_other_platform() -> None:
    real = builtins.__import__

    def importing(name: str, globals: Any = None, *rest: Any, **named: Any) -> ModuleType:
        caller = (globals or {}).get("__name__") or ""
        if PLATFORM == "win32" and name in POSIX_MODULES and caller.startswith("sppnet"):
            raise ModuleNotFoundError(name)
        return real(name, globals, *rest, **named)

    builtins.__import__ = importing
    if PLATFORM == "win32":
        sys.modules["msvcrt"] = stand_in()
    for module, names in LINUX_ONLY.items():
        for name in names:
            if PLATFORM == "win32" or module is mmap or name in ("RTLD_NOLOAD", "sched_getaffinity"):
                vars(module).pop(name, None)


def import_everything() -> int:
    """Import all modules of the package while the system claims to be the other one."""
    import sppnet

    before, sys.platform = sys.platform, PLATFORM
    try:
        names = [found.name for found in pkgutil.walk_packages(sppnet.__path__, "sppnet.")]
        for name in names:
            if not name.startswith(NOT_IMPORTED):
                importlib.import_module(name)
    finally:
        sys.platform = before
    return len(names)


def use(folder: Path) -> None:
    """Both kinds of estimators, saved and loaded, and a folder of predictions."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
    from tiny_runs import make_data, make_estimators

    import sppnet
    from sppnet.cli import main
    from sppnet.ops.cpu import threads

    assert threads._parallel() is None, "the threads of torch's library"
    torch.set_num_threads(2)
    data = make_data(folder / "data")
    for name, estimator in make_estimators(data).items():
        run = estimator.save(folder / name)
        found = sppnet.load(run, "cpu").predict(data.image, threshold=0.0)
        expected = estimator.predict(data.image, threshold=0.0)
        np.testing.assert_allclose(found.scores.numpy(), expected.scores.numpy(), atol=1e-6)
    words = ["predict", str(folder / "detector"), str(data.boxes), "--out", str(folder / "out"), "--json"]
    assert main([*words, "--device", "cpu"]) == 0
    assert not [path for path in (folder / "out").iterdir() if path.suffix in (".lock", ".part")]


become_other_platform()
print(f"{import_everything()} modules")
with tempfile.TemporaryDirectory() as place:
    use(Path(place))
print("done")

"""Fixtures for the tests of several packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a file of tests/programs in a new process."""

    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PROGRAMS / f"{name}.py"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread of torch: for small batches, synchronising threads takes longer than the work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

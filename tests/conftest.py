"""What tests of several packages share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a file of tests/programs in a process of its own, for what one process cannot test on itself."""

    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PROGRAMS / f"{name}.py"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run

"""What differs on Windows and macOS, simulated in a process of its own."""

from __future__ import annotations

import os
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="takes away what Linux has")
@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_estimators_fit_save_and_predict_as_on_another_system(program, platform: str) -> None:
    said = program("other_platform", platform)
    assert said.stdout.splitlines()[-1:] == ["done"], said.stderr
    assert hasattr(os, "fork")  # taken away in the other process only

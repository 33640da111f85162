"""A short form of the soak: forked children with a stub in the network's place."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from soak_predict import check, kill_and_resume, make_images
from stub_detector import StubDetector, stub_run

from sppnet.cli import main


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_and_resumed_every_image_has_one_result_or_one_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sppnet.estimators.load", lambda run, device: StubDetector())
    good, bad = make_images(tmp_path / "images", 120, 0.1, 0)
    run, out = stub_run(tmp_path / "run"), tmp_path / "out"

    def start() -> int:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for number in (1, 2):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
                code = main(["predict", str(run), str(tmp_path / "images"), "--out", str(out)])
            finally:
                os._exit(code)
        return child

    statuses = kill_and_resume(start, out, 120, 4, 0)
    assert statuses[:-1] == [-signal.SIGKILL] * 4
    assert statuses[-1] == 2  # some images are bad
    assert check(out, good, bad) == []

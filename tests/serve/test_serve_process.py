"""The server as a process, and its command."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from running_server import started
from serve_images import png

from sppnet.cli import main

PNG = {"content-type": "image/png"}


def post(url: str, path: str = "/predict") -> httpx.Response:
    return httpx.post(url + path, content=png(1), headers=PNG, timeout=120)


def test_sigterm_finishes_accepted_requests_and_a_killed_server_restarts(detector_run: Path) -> None:
    with started(detector_run) as (process, url):
        assert post(url).status_code == 200
        process.kill()
        process.wait()
    port = url.rsplit(":", 1)[1]
    with started(detector_run, f"--port={port}") as (process, again):
        assert again == url
        held, signalled = threading.Event(), threading.Event()

        def body(number: int) -> Iterator[bytes]:
            yield png(number)[:100]
            if number == 0:
                # The server has a request once it counts it as in work.
                while "sppnet_images_in_work 8.0" not in httpx.get(f"{url}/metrics").text:
                    pass
                held.set()
            signalled.wait(60)
            yield png(number)[100:]

        def slow(number: int) -> int:
            return httpx.post(f"{url}/predict", content=body(number), headers=PNG, timeout=120).status_code

        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(slow, range(8))
            assert held.wait(60)
            process.send_signal(signal.SIGTERM)
            signalled.set()
            assert list(answers) == [200] * 8
        assert process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            post(url)


def test_mistakes_of_the_command(
    detector_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        assert main(["serve", *words]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refused(str(detector_run), f"--port={port}")
    assert "port" in refused(str(detector_run), "--port=70000")
    assert "nowhere" in refused(str(tmp_path / "nowhere"))
    assert "queue" in refused(str(detector_run), "--queue=0")
    assert "no.such.host.invalid" in refused(str(detector_run), "--host=no.such.host.invalid", "--port=0")


def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sppnet.cli.serve.find_spec", lambda name: None)
    assert main(["serve", str(tmp_path)]) == 2
    assert "pip install 'sppnet[serve]'" in capsys.readouterr().err

"""A server on a thread of this process, or in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from sppnet.serve.server import Server, listening

START = "import sys; from sppnet.cli import main; sys.exit(main(sys.argv[1:]))"


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve on a free port of the loopback device; gives the address."""
    with listening("127.0.0.1", 0) as listener:
        server = Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def started(run: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``sppnet serve`` in a process; gives it and its address once it listens."""
    command = [sys.executable, "-c", START, "serve", str(run), "--device=cpu", *words]
    if not any(word.startswith("--port") for word in words):
        command.append("--port=0")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("Serving "), line + process.stderr.read()
            yield process, line.rsplit(" ", 1)[1].strip().rstrip("/")
        finally:
            process.kill()

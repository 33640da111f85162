"""``sppnet serve``: serve a run over HTTP, with a web page."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from sppnet.cli.estimators import Device
from sppnet.cli.flags import ConfigFile, read_flags
from sppnet.errors import MissingExtraError

__all__ = ["ServeFlags", "run"]


@dataclass(frozen=True)
class ServeFlags:
    """Serve a run over HTTP, with a web page at /. SIGTERM finishes accepted requests and exits with code 0.

    Attributes:
        run: run folder of sppnet fit or sppnet train.
        host: address to listen on; 0.0.0.0 accepts connections of other machines.
        port: port to listen on; 0 for a free port.
        batch_ms: maximum wait for further images of a batch, in milliseconds.
        max_batch: maximum number of images per batch; 1 disables batching.
        max_megapixels: maximum size of an image, in millions of pixels.
        max_bytes: maximum size of a request body.
        max_files: maximum number of images per request.
        queue: maximum number of images in work; more are rejected with 429.
        read_seconds: maximum time to receive a request body.
        grace: maximum time to finish requests after SIGTERM, in seconds.
        device: device to compute on.
        access_log: print a line per request on stdout, without its content.
        config: TOML file with values for these flags; flags on the command line win.
        json: print one JSON document with the address on stdout when the server listens.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    host: str = "127.0.0.1"
    port: int = 8000
    batch_ms: float = 10.0
    max_batch: int = 16
    max_megapixels: float = 32.0
    max_bytes: int = 20 * 2**20
    max_files: int = 16
    queue: int = 128
    read_seconds: float = 30.0
    grace: float = 30.0
    device: Device = "auto"
    access_log: bool = False
    config: ConfigFile = None
    json: bool = False


def run(words: list[str]) -> int:
    """Serve until a signal is received."""
    flags = read_flags(ServeFlags, "sppnet serve", words)
    for package in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "serve", "sppnet serve")
    from sppnet.estimators import load
    from sppnet.serve import ServeOptions, create_app, serve

    options = ServeOptions(
        max_bytes=flags.max_bytes,
        max_megapixels=flags.max_megapixels,
        max_files=flags.max_files,
        queue=flags.queue,
        batch_ms=flags.batch_ms,
        max_batch=flags.max_batch,
        read_seconds=flags.read_seconds,
    )
    options.check()
    app = create_app(load(flags.run, flags.device), options)

    def say(url: str) -> None:
        print(f"Serving {flags.run} at {url}", file=sys.stderr, flush=True)
        if flags.json:
            print(json.dumps({"run": str(flags.run), "url": url}), flush=True)

    serve(app, flags.host, flags.port, access_log=flags.access_log, grace=flags.grace, started=say)
    return 0

"""Run the application on a socket until a signal."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from sppnet.errors import UserError


class Server(uvicorn.Server):
    """Uvicorn's server, which returns after SIGTERM instead of raising the signal again."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Handle signals while the block runs; only SIGINT is raised again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        watched = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in watched}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if signal.SIGINT in self._captured_signals:
            raise KeyboardInterrupt


def serve(
    app: FastAPI,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    access_log: bool = False,
    grace: float = 30.0,
    started: Callable[[str], None] = print,
) -> None:
    """Serve an application until SIGTERM or SIGINT.

    After the signal no connection is accepted; accepted requests are finished first.

    Args:
        app: an application from `create_app`.
        host: address to listen on.
        port: port to listen on; 0 for a free port.
        access_log: log a line per request, without its content.
        grace: maximum time to finish requests after the signal, in seconds.
        started: function that receives the URL when connections are accepted.

    Raises:
        UserError: the address is not available.
        KeyboardInterrupt: after SIGINT, when all requests are finished.

    Examples:
        >>> serve(create_app(sppnet.load("run")), port=8080)  # doctest: +SKIP
    """
    with listening(host, port) as listener:
        config = uvicorn.Config(
            app,
            access_log=access_log,
            log_level="info" if access_log else "warning",
            timeout_graceful_shutdown=max(1, round(grace)),
            server_header=False,
        )
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listener.getsockname()[1]}/")
        Server(config).run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """Open a socket that listens on an address.

    Raises:
        UserError: the host does not exist, or the port is in use or not permitted.
    """
    if not 0 <= port <= 65535:
        raise UserError("port", "0 to 65535", port)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "Choose another --port; 0 takes a free one."
        raise UserError(f"{host}:{port}", "an address that can be listened on", reason, hint) from error

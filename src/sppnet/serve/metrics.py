"""Prometheus metrics of a server."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Metrics in a separate registry, so that several servers in one process are independent.

    Args:
        in_work: function that returns the number of images in work.
    """

    def __init__(self, in_work: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sppnet_requests", "Requests by path and status.", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "sppnet_request_seconds",
            "Seconds from a request to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.images = Counter(
            "sppnet_images", "Images by outcome: ok or the reason.", ("outcome",), registry=self.registry
        )
        self.batch_size = Histogram(
            "sppnet_batch_images", "Images per batch.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self.batch_seconds = Histogram(
            "sppnet_batch_seconds", "Seconds per batch.", buckets=_SECONDS, registry=self.registry
        )
        gauge = Gauge("sppnet_images_in_work", "Images read, waiting or computed.", registry=self.registry)
        gauge.set_function(in_work)

    def batch(self, size: int, seconds: float) -> None:
        """Record the size and the seconds of a batch."""
        self.batch_size.observe(size)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return the metrics in the text format."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware that counts requests and sets the security headers of every answer.

    Args:
        app: the application.
        metrics: the metrics.
        paths: the known paths; others are counted as ``other``, so that clients cannot add metrics.
        headers: headers of every answer.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, paths: frozenset[str], headers: list[tuple[bytes, bytes]]
    ) -> None:
        self._app, self._metrics, self._paths, self._headers = app, metrics, paths, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        started = time.monotonic()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
                self._metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.seconds.labels(path).observe(time.monotonic() - started)

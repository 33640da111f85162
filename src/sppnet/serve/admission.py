"""How much may be in work at a time: images, bytes and pixels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sppnet.serve.options import ServeOptions
from sppnet.serve.problems import Problem

_BODIES = 16
"""Request bodies of the largest size that may lie in memory at a time."""
_IMAGES = 4
"""Decoded images of the largest size that may lie in memory at a time."""


class Ticket:
    """The share of the limits that one request holds."""

    def __init__(self) -> None:
        self.images = 0
        self.bytes = 0


class Admission:
    """Counts what is in work and refuses more than the limits; for use on one event loop.

    Args:
        options: limits.
    """

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._pixels = 0
        self._freed = asyncio.Condition()
        self._seconds = 0.1
        self.images = 0
        self.bytes = 0

    def note(self, seconds: float) -> None:
        """Learn how long one image takes, for Retry-After."""
        self._seconds += 0.1 * (seconds - self._seconds)

    def enter(self, ticket: Ticket, images: int, size: int) -> None:
        """Reserve places in the queue and bytes of memory.

        Raises:
            Problem: 429 when the queue or the memory for bodies is full; nothing is reserved then.
        """
        full = self.images + images > self._options.queue
        if full or self.bytes + size > _BODIES * self._options.max_bytes:
            after = min(60, max(1, round(self._seconds * self.images)))
            message = f"expected at most {self._options.queue} images in work, got more. Try again later."
            raise Problem(429, "queue_full", message, after)
        self.images += images
        self.bytes += size
        ticket.images += images
        ticket.bytes += size

    def leave(self, ticket: Ticket) -> None:
        """Give back what a request holds."""
        self.images -= ticket.images
        self.bytes -= ticket.bytes
        ticket.images = ticket.bytes = 0

    @asynccontextmanager
    async def pixels(self, count: int) -> AsyncGenerator[None]:
        """Wait until memory for a decoded image is free, and hold it."""
        async with self._freed:
            limit = _IMAGES * self._options.max_pixels
            await self._freed.wait_for(lambda: self._pixels + count <= limit)
            self._pixels += count
        try:
            yield
        finally:
            self._pixels -= count
            async with self._freed:
                self._freed.notify_all()

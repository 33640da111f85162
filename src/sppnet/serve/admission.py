"""Limits of concurrent work: images, bytes and pixels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sppnet.serve.options import ServeOptions
from sppnet.serve.problems import Problem

_BODIES = 16
"""Maximum number of request bodies of the largest size in memory."""
_IMAGES = 4
"""Maximum number of decoded images of the largest size in memory."""


class Ticket:
    """The resources that a request has reserved."""

    def __init__(self) -> None:
        self.images = 0
        self.bytes = 0


class Admission:
    """Count concurrent work and reject requests beyond the limits; not thread-safe, for one event loop.

    Args:
        options: the limits.
    """

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._pixels = 0
        self._freed = asyncio.Condition()
        self._seconds = 0.1
        self.images = 0
        self.bytes = 0

    def note(self, seconds: float) -> None:
        """Record the seconds of one image, for Retry-After."""
        self._seconds += 0.1 * (seconds - self._seconds)

    def enter(self, ticket: Ticket, images: int, size: int) -> None:
        """Reserve slots of the queue and bytes of memory.

        Args:
            ticket: the ticket of the request, which records the reservation.
            images: number of images.
            size: number of bytes.

        Raises:
            Problem: 429 if the queue or the memory for bodies is full; then nothing is reserved.
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
        """Release the resources of a request."""
        self.images -= ticket.images
        self.bytes -= ticket.bytes
        ticket.images = ticket.bytes = 0

    @asynccontextmanager
    async def pixels(self, count: int) -> AsyncGenerator[None]:
        """Reserve memory for a decoded image of ``count`` pixels while the block runs, or wait for it."""
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

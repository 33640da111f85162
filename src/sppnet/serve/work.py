"""Processing of a request: admission, decoding, computation and answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from sppnet.data.images import Pixels
from sppnet.errors import UserError, memory_errors
from sppnet.serve.admission import Admission, Ticket
from sppnet.serve.batching import Batcher
from sppnet.serve.bodies import Body, Upload, uploads
from sppnet.serve.decode import decode, open_upload
from sppnet.serve.metrics import Metrics
from sppnet.serve.model import Served
from sppnet.serve.options import ServeOptions
from sppnet.serve.problems import Problem, SafeJSON

Work = Callable[[Pixels], dict[str, Any]]


@dataclass(frozen=True)
class Form:
    """The content of a request: its images and the text of its field ``boxes``."""

    files: list[Upload]
    boxes: bytes | None


class Workshop:
    """Read, decode and process requests; one instance per application.

    Args:
        served: the estimator.
        options: limits and batching.
    """

    def __init__(self, served: Served, options: ServeOptions) -> None:
        self.served, self.options = served, options
        self.admission = Admission(options)
        self.metrics = Metrics(lambda: self.admission.images)
        wait = options.batch_ms / 1000
        self.batcher = Batcher(served.backbone.device, wait, options.max_batch, self._note_batch)
        self.decoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "sppnet-decode")

    def start(self) -> None:
        """Start the worker thread."""
        self.batcher.start()

    def close(self) -> None:
        """Finish the queued jobs, then stop all threads."""
        self.batcher.close()
        self.decoders.shutdown()

    def _note_batch(self, size: int, seconds: float) -> None:
        self.metrics.batch(size, seconds)
        self.admission.note(seconds / size)

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncGenerator[Form]:
        """Yield the content of a request, which occupies slots of the queue until the block ends.

        Raises:
            Problem: a limit is exceeded, or the body is broken.
        """
        ticket, reader = Ticket(), Body(request, self.options)
        try:
            try:
                self.admission.enter(ticket, 1, 0)
                body = await reader.read(ticket, self.admission)
            except Problem:
                await reader.drain()
                raise
            kind = request.headers.get("content-type", "")
            files, boxes = await self._in_pool(uploads, body, kind, self.options)
            self.admission.enter(ticket, len(files) - 1, 0)
            yield Form(files, boxes)
        finally:
            self.admission.leave(ticket)

    async def answer(self, files: list[Upload], works: list[Work]) -> SafeJSON:
        """Return the results or errors of all images, in their order.

        The status is 200 if at least one image has a result, otherwise that of the first image's error.
        """
        started = time.monotonic()
        found = await asyncio.gather(
            *(self._image(upload, work) for upload, work in zip(files, works, strict=True))
        )
        failed = [item for item in found if isinstance(item, Problem)]
        if len(failed) == len(found):
            return failed[0].response()
        results = [
            {"file": upload.label, **(item.to_dict() if isinstance(item, Problem) else item)}
            for upload, item in zip(files, found, strict=True)
        ]
        milliseconds = round(1000 * (time.monotonic() - started), 1)
        return SafeJSON({"results": results, "failed": len(failed), "milliseconds": milliseconds})

    async def _image(self, upload: Upload, work: Work) -> dict[str, Any] | Problem:
        try:
            result = await self._computed(upload, work)
        except Problem as problem:
            self.metrics.images.labels(problem.reason).inc()
            return problem
        self.metrics.images.labels("ok").inc()
        return result

    async def _computed(self, upload: Upload, work: Work) -> dict[str, Any]:
        image = await self._in_pool(open_upload, upload.data, self.options)
        async with self.admission.pixels(image.width * image.height):
            self.batcher.arriving(1)
            try:
                pixels = await self._in_pool(decode, image)
                future = self.batcher.submit(lambda: work(pixels))
            finally:
                self.batcher.arriving(-1)
            try:
                with memory_errors():
                    result = await asyncio.wrap_future(future)
            except UserError as error:
                raise Problem(422, "unusable_image", str(error)) from error
            except MemoryError:
                raise Problem(503, "memory", "expected memory for the image, got none", 5) from None
            return {"height": pixels.shape[0], "width": pixels.shape[1], **result}

    async def _in_pool(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.decoders, work, *arguments)

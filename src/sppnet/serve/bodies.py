"""Reading and parsing of request bodies within limits."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import Request

from sppnet.serve.admission import Admission, Ticket
from sppnet.serve.multipart import Part, parse_form
from sppnet.serve.options import ServeOptions
from sppnet.serve.problems import Problem

BoxLists = list[list[list[float]]]

_LARGEST = 1e7
"""Largest magnitude of a coordinate."""
_DRAINED = 4
"""Rejected bodies are drained up to this multiple of the limit, so that clients read the answer."""
_DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Upload:
    """An uploaded image: the label given by the client, empty for a raw body, and the bytes of the file."""

    label: str
    data: bytes


class Body:
    """The body of a request, read within limits.

    Args:
        request: a request whose body has not been read.
        options: the limits.
    """

    def __init__(self, request: Request, options: ServeOptions) -> None:
        self._request, self._options = request, options
        self._more = True

    async def read(self, ticket: Ticket, admission: Admission) -> bytes:
        """Read the body.

        Raises:
            Problem: 413 for more than ``max_bytes``, 408 after ``read_seconds``, 429 if the memory for
                bodies is full.
        """
        options = self._options
        declared = self._request.headers.get("content-length", "")
        size = int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else None
        if size is not None and size > options.max_bytes:
            raise _too_large(options)
        admission.enter(ticket, 0, size or 0)
        body = bytearray()
        try:
            async with asyncio.timeout(options.read_seconds):
                while self._more:
                    chunk = await self._chunk()
                    if size is None:
                        admission.enter(ticket, 0, len(chunk))
                    body += chunk
                    if len(body) > options.max_bytes:
                        raise _too_large(options)
        except TimeoutError:
            self._more = False
            expected = f"expected the body within {options.read_seconds:g} seconds"
            raise Problem(408, "slow_body", f"{expected}, got a part") from None
        return bytes(body)

    async def drain(self) -> None:
        """Read and discard the rest of a rejected body, up to a limit; many clients read no answer before.

        A client that sent ``Expect: 100-continue`` has not sent the body yet and is answered at once.
        """
        if "expect" in self._request.headers:
            return
        dropped = 0
        try:
            async with asyncio.timeout(min(_DRAIN_SECONDS, self._options.read_seconds)):
                while self._more and dropped <= _DRAINED * self._options.max_bytes:
                    dropped += len(await self._chunk())
        except (TimeoutError, Problem):
            return  # the connection is closed with the answer

    async def _chunk(self) -> bytes:
        message = await self._request.receive()
        if message["type"] != "http.request":
            self._more = False
            raise Problem(408, "disconnected", "expected a body, got a closed connection")
        self._more = bool(message.get("more_body", False))
        return message.get("body", b"")


def uploads(body: bytes, content_type: str, options: ServeOptions) -> tuple[list[Upload], bytes | None]:
    """Parse a body into images and the field ``boxes`` of the form.

    Args:
        body: the complete body.
        content_type: value of the Content-Type header.
        options: the limits.

    Returns:
        The images, and the text of the field ``boxes``; None without the field.

    Raises:
        Problem: 413, 415 or 422.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [Upload("", body)], None
    if kind != "multipart/form-data":
        expected = "expected multipart/form-data, image/* or application/octet-stream as the content type"
        raise Problem(415, "content_type", f"{expected}, got another")
    parts = parse_form(body, content_type, options.max_files + 1)
    files = [part for part in parts if part.label is not None]
    fields = [part for part in parts if part.label is None]
    if len(files) > options.max_files:
        raise Problem(413, "too_many_files", f"expected at most {options.max_files} files, got more")
    if not files:
        raise Problem(422, "no_files", "expected at least one uploaded file, got none")
    return [Upload(part.label or "", bytes(part.data)) for part in files], _boxes_field(fields)


def _boxes_field(fields: list[Part]) -> bytes | None:
    if any(part.name != "boxes" for part in fields) or len(fields) > 1:
        raise Problem(422, "field", "expected files and at most one field, boxes, got another field")
    return bytes(fields[0].data) if fields else None


def read_boxes(text: bytes, images: int, options: ServeOptions) -> BoxLists:
    """Parse the boxes of every image from the field ``boxes``.

    Args:
        text: JSON: a list of ``[x0, y0, x1, y1]`` for one image, or a list of such lists, one per image.
        images: number of images of the request.
        options: the limits.

    Returns:
        One list of boxes per image.

    Raises:
        Problem: 422 for invalid text, 413 for too many boxes.

    Examples:
        >>> read_boxes(b"[[0, 0, 8, 8]]", 1, ServeOptions())
        [[[0.0, 0.0, 8.0, 8.0]]]
    """
    try:
        given: object = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # includes invalid UTF-8 and integers with too many digits
        raise _bad_boxes("no JSON") from error
    if images == 1 and isinstance(given, list) and not _nested(cast("list[object]", given)):
        given = [given]
    if not isinstance(given, list) or len(cast("list[object]", given)) != images:
        raise _bad_boxes("another number of lists")
    lists = cast("list[object]", given)
    counts = [len(cast("list[object]", item)) if isinstance(item, list) else 0 for item in lists]
    if sum(counts) > options.max_boxes:
        raise Problem(413, "too_many_boxes", f"expected at most {options.max_boxes} boxes, got more")
    if not all(isinstance(item, list) for item in lists):
        raise _bad_boxes("something else")
    return [[_box(box) for box in cast("list[object]", item)] for item in lists]


def _nested(given: list[object]) -> bool:
    """Return whether a list contains lists of boxes, one per image."""
    first = given[0] if len(given) == 1 else None
    inner = cast("list[Any]", first) if isinstance(first, list) else []
    return isinstance(first, list) and (not inner or isinstance(inner[0], list))


def _box(given: object) -> list[float]:
    if not isinstance(given, list) or len(cast("list[object]", given)) != 4:
        raise _bad_boxes("a box of another length")
    box: list[float] = []
    for value in cast("list[object]", given):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _bad_boxes("a coordinate that is no number")
        if not -_LARGEST <= value <= _LARGEST or math.isnan(value):
            raise _bad_boxes("a coordinate that is not finite or beyond 1e7")
        box.append(float(value))
    if box[2] < box[0] or box[3] < box[1]:
        raise _bad_boxes("a box with x1 < x0 or y1 < y0")
    return box


def _bad_boxes(got: str) -> Problem:
    expected = "expected JSON: [[x0, y0, x1, y1], ...] for one image, or a list of such lists, one per image"
    return Problem(422, "boxes", f"boxes: {expected}, got {got}")


def _too_large(options: ServeOptions) -> Problem:
    return Problem(413, "too_large", f"expected a body of at most {options.max_bytes} bytes, got more")

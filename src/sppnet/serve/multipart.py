"""Multipart forms, parsed in memory without temporary files."""

from __future__ import annotations

import logging
import unicodedata
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sppnet.serve.problems import Problem

_LONGEST_NAME = 200

# The parser logs bytes of broken bodies, but uploads must not be logged.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)


@dataclass
class Part:
    """One part of a form.

    Attributes:
        name: name of the field.
        label: printable file name given by the client; None for a field that is not a file. It is only
            repeated in the answer and never used as a path.
        data: the content.
    """

    name: str
    label: str | None
    data: bytearray = field(default_factory=bytearray)


def parse_form(body: bytes, content_type: str, most: int) -> list[Part]:
    r"""Parse a multipart/form-data body.

    Args:
        body: the complete body.
        content_type: value of the Content-Type header, with the boundary.
        most: maximum number of parts.

    Returns:
        The parts, in their order.

    Raises:
        Problem: 422 for a broken form, 413 for too many parts.

    Examples:
        >>> body = b'--x\r\nContent-Disposition: form-data; name="boxes"\r\n\r\n[]\r\n--x--\r\n'
        >>> parse_form(body, "multipart/form-data; boundary=x", 1)[0].data
        bytearray(b'[]')
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise _broken("a boundary in the content type", "none")
    reader = _Reader(most)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_part_data": reader.content,
                "on_header_field": reader.header_name,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_headers_finished": reader.headers_end,
                "on_end": reader.end,
            },
        )
        parser.write(body)
    except FormParserError as error:
        raise _broken("a multipart form", f"an error: {error}") from error
    if not reader.ended:
        raise _broken("a complete multipart form", "a truncated one")
    return reader.parts


def printable(name: str) -> str:
    """Remove control, format and surrogate characters, and truncate to 200 characters."""
    kept = "".join(c for c in name if not unicodedata.category(c).startswith("C"))
    return kept[:_LONGEST_NAME]


class _Reader:
    """The callbacks of the parser."""

    def __init__(self, most: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._most = most
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}

    def begin(self) -> None:
        self._headers = {}
        if len(self.parts) >= self._most:
            raise Problem(413, "too_many_files", f"expected at most {self._most} parts, got more")

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def headers_end(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        options = parse_options_header(disposition)[1]
        if b"name" not in options:
            raise _broken("a name for every part", "a part without one")
        label = options.get(b"filename")
        self.parts.append(Part(_text(options[b"name"]), None if label is None else printable(_text(label))))

    def content(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def end(self) -> None:
        self.ended = True


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _broken(expected: str, got: str) -> Problem:
    return Problem(422, "broken_form", printable(f"expected {expected}, got {got}"))

"""Errors of requests and their responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse


class Problem(Exception):
    """The error of a request, or of one image of it.

    Args:
        status: HTTP status, 4xx or 503.
        reason: machine-readable code, such as ``too_many_pixels``.
        message: human-readable sentence.
        retry_after: seconds after which the request may succeed.

    Examples:
        >>> Problem(413, "too_many_files", "expected at most 16 files, got 20").to_dict()["error"]["status"]
        413
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    def to_dict(self) -> dict[str, dict[str, object]]:
        """Return ``{"error": {"status", "reason", "message"}}``."""
        return {"error": {"status": self.status, "reason": self.reason, "message": self.message}}

    def response(self) -> SafeJSON:
        """Return the HTTP response."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return SafeJSON(self.to_dict(), self.status, headers)


class SafeJSON(JSONResponse):
    """JSON in ASCII, which can represent lone surrogates in names, unlike UTF-8."""

    def __init__(
        self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(content, status_code, headers)

    def render(self, content: Any) -> bytes:
        """Encode the body; NaN raises `ValueError`."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


_REASONS = {
    408: "The request body did not arrive in time.",
    413: "The body, an image or the number of files exceeds a limit.",
    415: "The content type is neither an image nor multipart/form-data.",
    422: "An image does not decode, or a parameter or the form is invalid.",
    429: "The queue is full; Retry-After says when to try again.",
    503: "The server is not ready.",
}

_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["status", "reason", "message"],
            "properties": {
                "status": {"type": "integer"},
                "reason": {"type": "string"},
                "message": {"type": "string"},
            },
        }
    },
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of problems with these statuses."""
    return {
        status: {"description": _REASONS[status], "content": {"application/json": {"schema": _SCHEMA}}}
        for status in statuses
    }

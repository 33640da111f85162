"""The page at ``/``: one file, whose content security policy allows only its own script and style."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files


@functools.cache
def page() -> str:
    """Return the HTML text."""
    return (files("sppnet.serve") / "page.html").read_text(encoding="utf-8")


@functools.cache
def page_headers() -> dict[str, str]:
    """Return the headers of the page, which allow script and style by their digests."""
    policy = {
        "default-src": "'none'",
        "script-src": _digests("script"),
        "style-src": _digests("style"),
        "img-src": "data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
        "Cache-Control": "no-cache",
    }


def _digests(tag: str) -> str:
    texts = re.findall(f"<{tag}>(.*?)</{tag}>", page(), re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    return " ".join(f"'sha256-{digest}'" for digest in digests)

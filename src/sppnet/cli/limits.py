"""The limit of the size of images, as a flag."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from sppnet.errors import UserError

__all__ = ["pixel_limit"]


@contextmanager
def pixel_limit(megapixels: float | None) -> Generator[None]:
    """Set the maximum size of images in a context; None leaves it.

    Raises:
        UserError: the limit is not a number above 0.
    """
    if megapixels is None:
        yield
        return
    if not megapixels > 0:
        raise UserError("--max-megapixels", "a number above 0", megapixels)
    name = "SPPNET_MAX_MEGAPIXELS"
    before = os.environ.get(name)
    os.environ[name] = repr(megapixels)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before

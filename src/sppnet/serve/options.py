"""Limits and batching of the server."""

from __future__ import annotations

from dataclasses import dataclass

from sppnet.errors import UserError


@dataclass(frozen=True)
class ServeOptions:
    """Limits of requests, and batching.

    Attributes:
        max_bytes: maximum size of a request body.
        max_megapixels: maximum size of an image in millions of pixels, checked before decoding.
        max_aspect: maximum ratio of the long side of an image to its short side.
        max_files: maximum number of images per request.
        max_boxes: maximum number of boxes per request for features.
        queue: maximum number of images that are read, waiting or computed; more are rejected with 429.
        batch_ms: maximum wait for further images that are being decoded, in milliseconds.
        max_batch: maximum number of images per batch; 1 disables batching.
        read_seconds: maximum time to receive a request body.

    Examples:
        >>> ServeOptions(max_files=4).max_batch
        16
        >>> ServeOptions(max_batch=0).check()
        Traceback (most recent call last):
            ...
        sppnet.errors.UserError: max_batch: expected 1 to 1024, got 0
    """

    max_bytes: int = 20 * 2**20
    max_megapixels: float = 32.0
    max_aspect: float = 50.0
    max_files: int = 16
    max_boxes: int = 256
    queue: int = 128
    batch_ms: float = 10.0
    max_batch: int = 16
    read_seconds: float = 30.0

    def check(self) -> None:
        """Validate all ranges.

        Raises:
            UserError: a value is out of range; it names the first one.
        """
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(name, f"{low:g} to {high:g}", value)
        if self.max_files > self.queue:
            raise UserError("max_files", f"at most the queue, {self.queue}", self.max_files)

    @property
    def max_pixels(self) -> int:
        """Maximum number of pixels of an image."""
        return int(self.max_megapixels * 1e6)


_RANGES: dict[str, tuple[float, float]] = {
    "max_bytes": (1, 2**31),
    "max_megapixels": (1e-6, 178),  # Pillow's own limit
    "max_aspect": (1, 1000),
    "max_files": (1, 1024),
    "max_boxes": (1, 100_000),
    "queue": (1, 100_000),
    "batch_ms": (0, 10_000),
    "max_batch": (1, 1024),
    "read_seconds": (0.1, 3600),
}

"""Grouping images so that a batch needs no padding."""

from __future__ import annotations

from collections.abc import Sequence

from sppnet.errors import UserError
from sppnet.structures import ImageSize


def batches_of_equal_size(sizes: Sequence[ImageSize], limit: int) -> list[list[int]]:
    """Positions of ``sizes`` in groups of one size, none longer than ``limit``.

    Every position stands in exactly one group, ascending within it; groups are ordered by their first
    position, so that results can be put back in order early.

    Raises:
        UserError: a limit below 1.
    """
    if limit < 1:
        raise UserError("limit", "at least 1 image a batch", limit)
    batches: list[list[int]] = []
    filling: dict[ImageSize, list[int]] = {}
    for position, size in enumerate(sizes):
        batch = filling.get(size)
        if batch is None or len(batch) == limit:
            batch = []
            filling[size] = batch
            batches.append(batch)
        batch.append(position)
    return batches

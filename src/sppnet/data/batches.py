"""Group images of equal size, so that a batch needs no padding."""

from __future__ import annotations

from collections.abc import Sequence

from sppnet.errors import UserError
from sppnet.structures import ImageSize


def batches_of_equal_size(sizes: Sequence[ImageSize], limit: int) -> list[list[int]]:
    """Group the indices of images by size, with at most ``limit`` images per group.

    Args:
        sizes: the size of each image.
        limit: largest number of images per group.

    Returns:
        Groups of ascending indices, ordered by their first index. Every index is in exactly one group.

    Raises:
        UserError: the limit is below 1.

    Examples:
        >>> small, large = ImageSize(2, 2), ImageSize(4, 4)
        >>> batches_of_equal_size([small, large, small, small], limit=2)
        [[0, 2], [1], [3]]
    """
    if limit < 1:
        raise UserError("limit", "at least 1 image per batch", limit)
    batches: list[list[int]] = []
    open_batches: dict[ImageSize, list[int]] = {}
    for index, size in enumerate(sizes):
        batch = open_batches.get(size)
        if batch is None or len(batch) == limit:
            batch = []
            open_batches[size] = batch
            batches.append(batch)
        batch.append(index)
    return batches

"""The windows of an image (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sppnet.detect.paper.images import Image
from sppnet.detect.paper.options import WindowOptions
from sppnet.detect.paper.stages import StageCache, file_key, key_of
from sppnet.errors import UserError
from sppnet.proposals import dense_windows, edge_boxes, proposals_for, selective_search, shapes_from_boxes
from sppnet.structures import Boxes, DetectionSet

_SHAPES = 16
_STEP = 0.2


def learn_window_shapes(dataset: DetectionSet) -> Tensor:
    """Shapes of dense windows from all boxes, every class of the same weight: ``[S, 2]``."""
    counts = torch.zeros(len(dataset.names))
    for item in dataset.items:
        counts += torch.bincount(item.truth.labels, minlength=len(counts))
    share = 1 / counts.clamp(min=1)
    truths = [item.truth for item in dataset.items]
    return shapes_from_boxes([t.boxes for t in truths], [share[t.labels] for t in truths], most=_SHAPES)


def windows_of(
    image: Image,
    options: WindowOptions,
    given: Mapping[str, Tensor] | None,
    shapes: Tensor,
    cache: StageCache,
) -> Boxes:
    """The windows of one image, found once and kept.

    Args:
        image: the image.
        options: where windows come from, and how many.
        given: what `sppnet.proposals.read_proposals` read from ``options.file``, or None without a file.
        shapes: of dense windows.
        cache: keeps what selective search and EdgeBoxes found.

    Raises:
        UserError: boxes from a file for an image that has none there.
        MissingExtraError: OpenCV is not installed.
    """
    if given is not None:
        if image.path is None:
            raise UserError("source", "an image by its path, to find its boxes in the file", "one in memory")
        return _thinned(proposals_for(given, image.path, image.size).boxes, options.most, ordered=True)
    if options.source == "dense":
        return dense_windows(image.size, shapes, step=_STEP, most=options.most)

    def search() -> dict[str, Tensor]:
        if options.source == "edge-boxes":
            assert options.edge_model is not None
            return {"boxes": edge_boxes(image.read(), options.edge_model, options.most).boxes.xyxy}
        return {"boxes": selective_search(image.read()).boxes.xyxy}

    model = "" if options.edge_model is None else file_key(options.edge_model)
    limit = options.most if options.source == "edge-boxes" else 0
    key = key_of("windows", image.key, options.source, model, limit)
    found = Boxes(cache.get("windows", key, search)["boxes"], image.size)
    return _thinned(found, options.most, ordered=options.source == "edge-boxes")


def _thinned(boxes: Boxes, most: int, *, ordered: bool) -> Boxes:
    """At most so many: the first where the order says which are good, else every n-th."""
    if len(boxes) <= most:
        return boxes
    if ordered:
        return boxes[:most]
    return boxes[torch.arange(most) * len(boxes) // most]


def with_truth(windows: Sequence[Boxes], dataset: DetectionSet) -> list[Boxes]:
    """The windows of each image, its objects' own boxes before them."""
    return [
        Boxes(torch.cat([item.truth.boxes.clip().xyxy, some.xyxy]), some.size)
        for some, item in zip(windows, dataset.items, strict=True)
    ]


def file_digest(path: Path | None) -> str:
    """A digest of a file's content, ``""`` for none."""
    return "" if path is None else file_key(path)

"""The proposals of an image, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.proposals.dense import dense_windows
from sppnet.proposals.edge_boxes import edge_boxes
from sppnet.proposals.from_file import proposals_for
from sppnet.proposals.selective_search import selective_search
from sppnet.structures import Boxes, ImageSize

Cached: TypeAlias = Callable[[Callable[[], Mapping[str, Tensor]]], Mapping[str, Tensor]]
"""Takes a search and returns its tensors, perhaps cached ones."""


@dataclass(frozen=True)
class ProposalSource:
    """Dense windows, boxes from a file, selective search or EdgeBoxes.

    Attributes:
        kind: where proposals come from where there is no table.
        most: maximum number of proposals per image; of more, the first ones, or every n-th of unranked ones.
        step: dense windows move by this share of their sides.
        shapes: ``[S, 2]`` of dense windows, as `sppnet.proposals.shapes_from_boxes` gives them.
        table: boxes by image, as `sppnet.proposals.read_proposals` gives them.
        edge_model: the file of OpenCV's structured edge model, for EdgeBoxes.

    Examples:
        >>> source = ProposalSource("dense", 5, shapes=torch.tensor([[0.5, 0.5]]))
        >>> 0 < len(source.boxes(ImageSize(40, 60))) <= 5
        True
    """

    kind: Literal["dense", "selective-search", "edge-boxes"] = "dense"
    most: int = 8000
    step: float = 0.2
    shapes: Tensor | None = None
    table: Mapping[str, Tensor] | None = None
    edge_model: Path | None = None

    @property
    def depends_on_size(self) -> bool:
        """Whether images of one size have equal proposals."""
        return self.table is None and self.kind == "dense"

    def boxes(
        self,
        size: ImageSize,
        path: Path | None = None,
        read: Callable[[], Tensor] | None = None,
        cached: Cached | None = None,
    ) -> Boxes:
        """Return the proposals of an image.

        Args:
            size: of the image.
            path: of its file, by which a table is searched.
            read: gives its pixels, float ``[3, H, W]``, for selective search and EdgeBoxes.
            cached: caches what these find; None searches anew.

        Raises:
            UserError: boxes from a file for an image that has none there.
            MissingExtraError: OpenCV is not installed.
        """
        if self.table is not None:
            if path is None:
                wanted = "an image by its path, to find its boxes in the proposals file"
                raise UserError("source", wanted, "an image in memory")
            return _thinned(proposals_for(self.table, path, size).boxes, self.most, ranked=True)
        if self.kind == "dense":
            assert self.shapes is not None
            return dense_windows(size, self.shapes, step=self.step, most=self.most)
        assert read is not None
        ranked = self.kind == "edge-boxes"
        model = self.edge_model

        def search() -> dict[str, Tensor]:
            image = read()
            if ranked:
                assert model is not None
                return {"boxes": edge_boxes(image, model, self.most).boxes.xyxy}
            return {"boxes": selective_search(image).boxes.xyxy}

        found = search() if cached is None else cached(search)
        return _thinned(Boxes(found["boxes"], size), self.most, ranked=ranked)


def _thinned(boxes: Boxes, most: int, *, ranked: bool) -> Boxes:
    """Return at most so many: the first where they are ranked, else every n-th."""
    if len(boxes) <= most:
        return boxes
    if ranked:
        return boxes[:most]
    return boxes[torch.arange(most) * len(boxes) // most]

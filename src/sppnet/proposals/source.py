"""The source of the proposals of an image."""

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
"""A function that returns the tensors of a search, computed or cached."""


@dataclass(frozen=True)
class ProposalSource:
    """Dense windows, boxes from a file, selective search or EdgeBoxes.

    Attributes:
        kind: kind of the proposals, unless ``table`` is given.
        most: maximum number of proposals per image: the first ones, or every n-th of unranked ones.
        step: stride of dense windows, in units of their sides.
        shapes: ``[S, 2]`` of dense windows, from `sppnet.proposals.shapes_from_boxes`.
        table: boxes by image, from `sppnet.proposals.read_proposals`.
        edge_model: the structured edge model of OpenCV, for EdgeBoxes.

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
        """Whether images of equal size have equal proposals."""
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
            size: size of the image.
            path: path of the image, the key of ``table``.
            read: function that returns the pixels, float ``[3, H, W]``, for selective search and EdgeBoxes.
            cached: cache of their results; None computes them.

        Returns:
            At most ``most`` boxes.

        Raises:
            UserError: the image has no entry in ``table``.
            MissingExtraError: OpenCV is not installed.
        """
        if self.table is not None:
            if path is None:
                expected = "the path of an image, as key of the proposals file"
                raise UserError("source", expected, "an image in memory")
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
    """Return at most ``most`` boxes: the first if they are ranked, otherwise every n-th."""
    if len(boxes) <= most:
        return boxes
    if ranked:
        return boxes[:most]
    return boxes[torch.arange(most) * len(boxes) // most]

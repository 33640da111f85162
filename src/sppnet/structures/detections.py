"""Annotated objects, proposals and detections of one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.structures.boxes import Boxes, ImageSize


def _check_length(where: str, field: Tensor, count: int) -> None:
    if field.shape != (count,):
        raise UserError(where, f"a tensor [{count}], one entry per box", f"shape {list(field.shape)}")


def _check_labels(where: str, labels: Tensor, names: tuple[str, ...]) -> None:
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= len(names)):
        raise UserError(where, f"class numbers 0..{len(names) - 1}", sorted(set(labels.tolist())))


@dataclass(frozen=True)
class GroundTruth:
    """The annotated objects of one image.

    Attributes:
        boxes: N boxes.
        labels: int64 ``[N]``, class numbers, which are indices into ``names``.
        names: the class names of the data set, in the order of the class numbers.
        difficult: bool ``[N]``, VOC's ``difficult``: objects that the metrics ignore.
        crowd: bool ``[N]``, COCO's ``iscrowd``: boxes around several objects.

    Raises:
        UserError: a field differs in length from the boxes, or a label is out of range.

    Examples:
        >>> import torch
        >>> boxes = Boxes(torch.tensor([[10.0, 20, 30, 60]]), ImageSize(100, 100))
        >>> GroundTruth.make(boxes, torch.tensor([1]), ("cat", "dog")).difficult
        tensor([False])
    """

    boxes: Boxes
    labels: Tensor
    names: tuple[str, ...]
    difficult: Tensor
    crowd: Tensor

    def __post_init__(self) -> None:
        for field in ("labels", "difficult", "crowd"):
            _check_length(f"GroundTruth.{field}", getattr(self, field), len(self.boxes))
        _check_labels("GroundTruth.labels", self.labels, self.names)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor | slice) -> GroundTruth:
        """Select objects by a mask, an index tensor or a slice."""
        return GroundTruth(
            self.boxes[index], self.labels[index], self.names, self.difficult[index], self.crowd[index]
        )

    @staticmethod
    def make(boxes: Boxes, labels: Tensor, names: tuple[str, ...]) -> GroundTruth:
        """Create objects of which none is difficult or a crowd."""
        false = torch.zeros(len(boxes), dtype=torch.bool)
        return GroundTruth(boxes, labels, names, false, false)


@dataclass(frozen=True)
class Proposals:
    """Candidate boxes of one image.

    Attributes:
        boxes: N boxes.
        scores: float32 ``[N]``, the higher the more probable; zeros if the source has no scores.

    Raises:
        UserError: ``scores`` differs in length from the boxes.

    Examples:
        >>> import torch
        >>> boxes = Boxes(torch.tensor([[0.0, 0, 30, 60], [5.0, 5, 9, 9]]), ImageSize(100, 100))
        >>> len(Proposals(boxes, torch.zeros(2))[:1])
        1
    """

    boxes: Boxes
    scores: Tensor

    def __post_init__(self) -> None:
        _check_length("Proposals.scores", self.scores, len(self.boxes))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor | slice) -> Proposals:
        """Select proposals by a mask, an index tensor or a slice."""
        return Proposals(self.boxes[index], self.scores[index])


@dataclass(frozen=True)
class Detections:
    """Detections of one image, by descending score.

    Attributes:
        boxes: N boxes.
        scores: float32 ``[N]``.
        labels: int64 ``[N]``, class numbers, which are indices into ``names``.
        names: the class names of the detector.

    Raises:
        UserError: a field differs in length from the boxes, or a label is out of range.

    Examples:
        >>> import torch
        >>> boxes = Boxes(torch.tensor([[0.0, 0, 30, 60], [5.0, 5, 9, 9]]), ImageSize(100, 100))
        >>> found = Detections(boxes, torch.tensor([0.9, 0.2]), torch.tensor([1, 0]), ("cat", "dog"))
        >>> found[found.scores > 0.5].labels
        tensor([1])
    """

    boxes: Boxes
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_length("Detections.scores", self.scores, len(self.boxes))
        _check_length("Detections.labels", self.labels, len(self.boxes))
        _check_labels("Detections.labels", self.labels, self.names)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor | slice) -> Detections:
        """Select detections by a mask, an index tensor or a slice."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index], self.names)

    @staticmethod
    def empty(size: ImageSize, names: tuple[str, ...]) -> Detections:
        """Create zero detections on an image of ``size``."""
        return Detections(Boxes.empty(size), torch.zeros(0), torch.zeros(0, dtype=torch.int64), names)

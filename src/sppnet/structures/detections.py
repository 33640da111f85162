"""Boxes with a meaning: what was annotated, proposed and found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.structures.boxes import Boxes, ImageSize


def _check_length(where: str, field: Tensor, count: int) -> None:
    if field.shape != (count,):
        raise UserError(where, f"a tensor [{count}], one entry a box", f"shape {list(field.shape)}")


def _check_labels(where: str, labels: Tensor, names: tuple[str, ...]) -> None:
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= len(names)):
        raise UserError(where, f"class numbers 0..{len(names) - 1}", sorted(set(labels.tolist())))


@dataclass(frozen=True)
class GroundTruth:
    """The annotated objects of one image.

    Attributes:
        boxes: N boxes.
        labels: int64 ``[N]``, positions in ``names``.
        names: the class names of the data set, in the order of its class numbers.
        difficult: bool ``[N]``; VOC's ``difficult``: neither counted nor punished by its metric.
        crowd: bool ``[N]``; COCO's ``iscrowd``: one box around many objects.
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
        """The objects that a mask, an index tensor or a slice picks, in every field."""
        return GroundTruth(
            self.boxes[index], self.labels[index], self.names, self.difficult[index], self.crowd[index]
        )

    @staticmethod
    def make(boxes: Boxes, labels: Tensor, names: tuple[str, ...]) -> GroundTruth:
        """Objects none of which is difficult or a crowd."""
        no = torch.zeros(len(boxes), dtype=torch.bool)
        return GroundTruth(boxes, labels, names, no, no)


@dataclass(frozen=True)
class Proposals:
    """Windows of one image that may hold an object.

    Attributes:
        boxes: N boxes.
        scores: float32 ``[N]``, higher is likelier; zeros where the source gives none.
    """

    boxes: Boxes
    scores: Tensor

    def __post_init__(self) -> None:
        _check_length("Proposals.scores", self.scores, len(self.boxes))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor | slice) -> Proposals:
        """The proposals that a mask, an index tensor or a slice picks."""
        return Proposals(self.boxes[index], self.scores[index])


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image, best first.

    Attributes:
        boxes: N boxes.
        scores: float32 ``[N]``.
        labels: int64 ``[N]``, positions in ``names``.
        names: the detector's class names.
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
        """The detections that a mask, an index tensor or a slice picks, in every field."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index], self.names)

    @staticmethod
    def empty(size: ImageSize, names: tuple[str, ...]) -> Detections:
        """Nothing found."""
        return Detections(Boxes.empty(size), torch.zeros(0), torch.zeros(0, dtype=torch.int64), names)

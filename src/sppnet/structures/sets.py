"""A labelled folder of images, whatever its layout: what `sppnet.data` returns and fitting takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sppnet.structures.detections import GroundTruth


@dataclass(frozen=True)
class ClassificationItem:
    """One image and its class number."""

    path: Path
    label: int


@dataclass(frozen=True)
class ClassificationSet:
    """Images of one class each.

    Attributes:
        root: the path that the user named.
        layout: ``"folders"``, ...
        split: the part that was read.
        names: class names; a class number is a position here, the same in every split.
        items: the images, sorted by path.
    """

    root: Path
    layout: str
    split: str
    names: tuple[str, ...]
    items: tuple[ClassificationItem, ...]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class DetectionItem:
    """One image and its annotated objects.

    Attributes:
        path: the image.
        key: its name in the data set: VOC's image id, COCO's ``image_id`` as text, YOLO's file stem.
        truth: its objects; ``truth.boxes.size`` is the image's size after EXIF rotation.
    """

    path: Path
    key: str
    truth: GroundTruth


@dataclass(frozen=True)
class DetectionSet:
    """Images with boxes.

    Attributes:
        root: the path that the user named.
        layout: ``"voc"``, ``"coco"`` or ``"yolo"``.
        split: the part that was read.
        names: class names; a class number is a position here, the same in every split.
        category_ids: the data set's own number of each class (COCO's sparse ids, YOLO's 0.., VOC's 1..).
        items: the images, in the data set's order.
    """

    root: Path
    layout: str
    split: str
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    items: tuple[DetectionItem, ...]

    def __len__(self) -> int:
        return len(self.items)

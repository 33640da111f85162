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
        notes: what the user should know of the files, such as counts of what was left out; one
            sentence each.
    """

    root: Path
    layout: str
    split: str
    names: tuple[str, ...]
    items: tuple[ClassificationItem, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class DetectionItem:
    """One image and its annotated objects.

    Attributes:
        path: the image.
        key: its name in the data set: VOC's image id, COCO's ``image_id`` as text, YOLO's file stem.
        truth: its objects; ``truth.boxes.size`` is the image's size after EXIF rotation.
        image_id: COCO's ``id`` of the image with its own type, as results must name it; else None.
    """

    path: Path
    key: str
    truth: GroundTruth
    image_id: int | str | None = None


@dataclass(frozen=True)
class DetectionSet:
    """Images with boxes.

    Attributes:
        root: the path that the user named.
        layout: ``"voc"``, ``"coco"`` or ``"yolo"``.
        split: the part that was read.
        names: class names; a class number is a position here, the same in every split.
        category_ids: the data set's own number of each class (COCO's sparse ids as declared, text
            where the file has text; YOLO's 0.., VOC's 1..).
        items: the images, in the data set's order.
        notes: what the user should know of the files, such as counts of what was left out; one
            sentence each.
    """

    root: Path
    layout: str
    split: str
    names: tuple[str, ...]
    category_ids: tuple[int | str, ...]
    items: tuple[DetectionItem, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

"""Annotated data sets of any layout: the results of the readers and the inputs of fitting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sppnet.structures.detections import GroundTruth


@dataclass(frozen=True)
class ClassificationItem:
    """One image of a classification data set.

    Attributes:
        path: the image.
        label: its class number.

    Examples:
        >>> ClassificationItem(Path("cats/1.jpg"), 0).label
        0
    """

    path: Path
    label: int


@dataclass(frozen=True)
class ClassificationSet:
    """A split of a classification data set, with one class per image.

    Attributes:
        root: the path that the user gave.
        layout: the layout of the files, such as ``"folders"``.
        split: the name of the split.
        names: class names, the same in every split; class numbers are indices into them.
        items: the images, sorted by path.
        notes: remarks on the files for the user, one sentence each, such as the number of skipped files.

    Examples:
        >>> items = (ClassificationItem(Path("cats/1.jpg"), 0),)
        >>> len(ClassificationSet(Path("."), "folders", "train", ("cats",), items))
        1
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
    """One image of a detection data set.

    Attributes:
        path: the image.
        key: its identifier: the image id of VOC, ``image_id`` of COCO as text, the file stem of YOLO.
        truth: its objects; ``truth.boxes.size`` is the size of the image after EXIF rotation.
        image_id: the ``id`` of the image in COCO files, with its type there; otherwise None.

    Examples:
        >>> import torch
        >>> from sppnet.structures import Boxes, ImageSize
        >>> empty = Boxes.empty(ImageSize(480, 640))
        >>> truth = GroundTruth.make(empty, torch.zeros(0, dtype=torch.int64), ("cat",))
        >>> DetectionItem(Path("1.jpg"), "1", truth).truth.boxes.size.width
        640
    """

    path: Path
    key: str
    truth: GroundTruth
    image_id: int | str | None = None


@dataclass(frozen=True)
class DetectionSet:
    """A split of a detection data set.

    Attributes:
        root: the path that the user gave.
        layout: ``"voc"``, ``"coco"`` or ``"yolo"``.
        split: the name of the split.
        names: class names, the same in every split; class numbers are indices into them.
        category_ids: the identifier of each class in the data set: for COCO the declared ids, numbers or
            text; for YOLO 0, 1, ...; for VOC 1, 2, ...
        items: the images, in the order of the data set.
        notes: remarks on the files for the user, one sentence each, such as the number of skipped files.

    Examples:
        >>> len(DetectionSet(Path("data"), "voc", "train", ("cat",), (1,), ()))
        0
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

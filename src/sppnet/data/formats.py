"""The label formats. A new format is one module of readers and one line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sppnet.data.coco import coco_splits, is_coco, read_coco
from sppnet.data.folders import folder_splits, is_folders, read_folders
from sppnet.data.voc import is_voc, read_voc, voc_splits
from sppnet.data.yolo import is_yolo, read_yolo, yolo_splits
from sppnet.structures import ClassificationSet, DetectionSet


@dataclass(frozen=True)
class Format:
    """A label format.

    Attributes:
        name: its name in ``--format`` and ``layout``.
        recognise: return whether a path has the format.
        splits: list the splits of a data set.
        detection: read a split of images with boxes; None for a format without boxes.
        classification: read a split of images of one class each; None for a format with boxes.
    """

    name: str
    recognise: Callable[[Path], bool]
    splits: Callable[[Path], tuple[str, ...]]
    detection: Callable[[Path, str], DetectionSet] | None = None
    classification: Callable[[Path, str], ClassificationSet] | None = None


FORMATS: list[Format] = [
    Format("voc", is_voc, voc_splits, detection=read_voc),
    Format("coco", is_coco, coco_splits, detection=read_coco),
    Format("yolo", is_yolo, yolo_splits, detection=read_yolo),
    Format("folders", is_folders, folder_splits, classification=read_folders),
]
"""The formats, in the order in which `sppnet.data.recognise` tests them; class folders are the last."""

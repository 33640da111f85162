"""Conversion of predictions.jsonl for COCO results and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sppnet.data import image_id_of_name
from sppnet.data.coco_ids import CocoIds, find_coco_ids
from sppnet.structures import Boxes, Detections, ImageSize

__all__ = ["coco_ids_of", "detections_of", "image_ids_of"]


def detections_of(line: Mapping[str, Any], names: tuple[str, ...]) -> Detections:
    """Return the detections of a line, with the unrounded values of the detector."""
    size = ImageSize(line["height"], line["width"])
    boxes = torch.tensor(line["exact"]["boxes"], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor(line["exact"]["scores"], dtype=torch.float32)
    labels = torch.tensor([found["label"] for found in line["detections"]], dtype=torch.int64)
    return Detections(Boxes(boxes, size), scores, labels, names)


def coco_ids_of(sources: Sequence[str]) -> CocoIds:
    """Return the ids of the COCO data sets whose folders, or folders inside them, are among the sources."""
    found = CocoIds()
    for source in sources:
        path = Path(source).absolute()
        folder = path if path.is_dir() else path.parent
        for parent in (folder, folder.parent, folder.parent.parent):
            # JSON files above the source may be unrelated.
            ids = find_coco_ids(parent, loose=parent == folder)
            if ids.images:
                found.add(ids)
                break
    return found


def image_ids_of(ids: CocoIds, images: Sequence[Path]) -> list[int | str]:
    """Return the id of each image in the data set, or else its file name without suffix."""
    found = [ids.image_id(path) for path in images]
    return [image_id_of_name(path) if one is None else one for one, path in zip(found, images, strict=True)]

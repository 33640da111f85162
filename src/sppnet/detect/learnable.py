"""Which classes of a data set a detector can learn."""

from __future__ import annotations

from dataclasses import replace

import torch

from sppnet.data import without_empty_classes
from sppnet.detect.samples import svm_targets
from sppnet.structures import DetectionItem, DetectionSet


def learnable(dataset: DetectionSet) -> DetectionSet:
    """The data set without the classes that have no positive example; ``notes`` names them.

    A class without objects has none, nor has one whose objects are all crowds, difficult or without area.

    Raises:
        UserError: no class is left.
    """
    learned: set[int] = set()
    for item in dataset.items:
        own = svm_targets(item.truth.boxes.clip(), item.truth)
        learned.update((own > 0).any(0).nonzero()[:, 0].tolist())
    if len(learned) == len(dataset.names):
        return dataset
    numbers = torch.tensor(sorted(learned), dtype=torch.int64)

    def marked(item: DetectionItem) -> DetectionItem:
        truth = item.truth
        difficult = truth.difficult | ~torch.isin(truth.labels, numbers)
        return replace(item, truth=replace(truth, difficult=difficult))

    return without_empty_classes(replace(dataset, items=tuple(map(marked, dataset.items))), difficult=False)


def left_out(before: DetectionSet, after: DetectionSet) -> list[str]:
    """The names of the classes that ``after`` lacks."""
    return [name for name in before.names if name not in after.names]

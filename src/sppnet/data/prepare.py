"""Reading a data set for fitting or for evaluation: damaged, held-out and unknown parts are settled first."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from sppnet.data.changes import classification_for, detection_for
from sppnet.data.holdout import FittedOn, fit_share, is_undivided, part_to_fit, part_to_measure, usable_images
from sppnet.data.layouts import default_split, read_classification, read_detection
from sppnet.structures import ClassificationSet, DetectionItem, DetectionSet

DetectionData: TypeAlias = str | os.PathLike[str] | DetectionSet
ClassificationData: TypeAlias = str | os.PathLike[str] | ClassificationSet


@dataclass(frozen=True)
class Division:
    """How an undivided data set is divided for a fit.

    Attributes:
        share: the share of the images that is held out for evaluation; None for the default of `fit_share`.
        seed: of the choice.
    """

    share: float | None
    seed: int


def detection_to_fit(
    data: DetectionData, split: str | None, layout: str | None, division: Division, *, skip_bad: bool
) -> tuple[DetectionSet, FittedOn]:
    """The images with boxes to fit on, all of which can be decoded, and the record of them.

    Args:
        data: a path, or a data set that was read.
        split: the part to fit on; the part for training when None.
        layout: of the path, where looking is not enough.
        division: of an undivided data set.
        skip_bad: leave damaged images out.

    Raises:
        UserError: data at fault, or damaged images, all of them listed.
    """
    share = fit_share(data, split, layout, division.share)
    dataset = data if isinstance(data, DetectionSet) else read_detection(data, split, layout)
    return part_to_fit(usable_images(dataset, skip_bad=skip_bad), share, division.seed)


def classification_to_fit(
    data: ClassificationData, split: str | None, layout: str | None, division: Division, *, skip_bad: bool
) -> tuple[ClassificationSet, FittedOn]:
    """The images of one class each to fit on; otherwise as `detection_to_fit`."""
    share = fit_share(data, split, layout, division.share)
    dataset = data if isinstance(data, ClassificationSet) else read_classification(data, split, layout)
    return part_to_fit(usable_images(dataset, skip_bad=skip_bad), share, division.seed)


def detection_to_measure(
    data: DetectionData,
    split: str | None,
    layout: str | None,
    names: tuple[str, ...],
    record: FittedOn | None,
    *,
    skip_bad: bool = False,
    unlearned: Collection[str] = (),
) -> tuple[DetectionSet, dict[str, object]]:
    """The images with boxes to evaluate on, and the facts that `part_to_measure` states of them.

    Args:
        data: a path, or a data set that was read.
        split: the part to evaluate on; the part for validation or test when None.
        layout: of the path, where looking is not enough.
        names: the run's classes.
        record: what the run was fitted on, where this is known.
        skip_bad: leave damaged images out.
        unlearned: classes that the run could not learn for want of objects; objects of them do not count.

    Raises:
        UserError: data at fault, objects of other classes, or damaged images, all of them listed.
    """
    undivided = is_undivided(data, split, layout)
    if not isinstance(data, DetectionSet):
        part = default_split(data, "evaluate", layout) if split is None else split
        data = read_detection(data, part, layout)
    dataset = detection_for(_without_objects_of(data, set(unlearned) - set(names)), names)
    return part_to_measure(usable_images(dataset, skip_bad=skip_bad), record, undivided=undivided)


def classification_to_measure(
    data: ClassificationData,
    split: str | None,
    layout: str | None,
    names: tuple[str, ...],
    record: FittedOn | None,
    *,
    skip_bad: bool = False,
) -> tuple[ClassificationSet, dict[str, object]]:
    """The images of one class each to evaluate on; otherwise as `detection_to_measure`."""
    undivided = is_undivided(data, split, layout)
    if not isinstance(data, ClassificationSet):
        part = default_split(data, "evaluate", layout) if split is None else split
        data = read_classification(data, part, layout)
    dataset = classification_for(data, names)
    return part_to_measure(usable_images(dataset, skip_bad=skip_bad), record, undivided=undivided)


def _without_objects_of(dataset: DetectionSet, names: Collection[str]) -> DetectionSet:
    """Without the objects of some classes; ``notes`` counts them."""
    numbers = torch.tensor([k for k, name in enumerate(dataset.names) if name in names], dtype=torch.int64)
    count = 0

    def changed(item: DetectionItem) -> DetectionItem:
        nonlocal count
        gone = torch.isin(item.truth.labels, numbers)
        count += int(gone.sum())
        return replace(item, truth=item.truth[~gone]) if bool(gone.any()) else item

    items = tuple(map(changed, dataset.items))
    if not count:
        return dataset
    note = f"{count} objects not counted, of classes that fitting left out: {', '.join(sorted(names))}"
    return replace(dataset, items=items, notes=(*dataset.notes, note))

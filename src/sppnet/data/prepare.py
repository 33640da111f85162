"""Read a data set for fitting or evaluation: check its images, hold out images, and match its classes."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from sppnet.data.changes import classification_for, detection_for
from sppnet.data.holdout import (
    FittedOn,
    fit_share,
    images_to_evaluate,
    images_to_fit,
    is_undivided,
    usable_images,
)
from sppnet.data.layouts import default_split, read_classification, read_detection
from sppnet.structures import ClassificationSet, DetectionItem, DetectionSet

DetectionData: TypeAlias = str | os.PathLike[str] | DetectionSet
ClassificationData: TypeAlias = str | os.PathLike[str] | ClassificationSet


@dataclass(frozen=True)
class Division:
    """The division of a data set without splits.

    Attributes:
        share: the share of the images that is held out for evaluation; None for the default.
        seed: seed of the random choice.

    Examples:
        >>> Division(share=0.2, seed=0).share
        0.2
    """

    share: float | None
    seed: int


def detection_to_fit(
    data: DetectionData, split: str | None, layout: str | None, division: Division, *, skip_bad: bool
) -> tuple[DetectionSet, FittedOn]:
    """Read the images with boxes to fit on, and check that all of them can be decoded.

    Args:
        data: a path or a data set object.
        split: the split to fit on; the training split when None.
        layout: the layout of the path; detected automatically when None.
        division: the division of a data set without splits.
        skip_bad: skip damaged images.

    Returns:
        The images, and the record of the fitted and the held-out images.

    Raises:
        UserError: the data are invalid, or images are damaged; the message lists them.

    Examples:
        >>> detection_to_fit("nowhere", None, None, Division(None, 0), skip_bad=False)
        Traceback (most recent call last):
        sppnet.errors.UserError: nowhere: expected a folder of labelled images, got no such folder
    """
    share = fit_share(data, split, layout, division.share)
    dataset = data if isinstance(data, DetectionSet) else read_detection(data, split, layout)
    return images_to_fit(usable_images(dataset, skip_bad=skip_bad), share, division.seed)


def classification_to_fit(
    data: ClassificationData, split: str | None, layout: str | None, division: Division, *, skip_bad: bool
) -> tuple[ClassificationSet, FittedOn]:
    """Read the images of one class each to fit on; otherwise like `detection_to_fit`.

    Examples:
        >>> classification_to_fit("nowhere", None, None, Division(None, 0), skip_bad=False)
        Traceback (most recent call last):
        sppnet.errors.UserError: nowhere: expected a folder of labelled images, got no such folder
    """
    share = fit_share(data, split, layout, division.share)
    dataset = data if isinstance(data, ClassificationSet) else read_classification(data, split, layout)
    return images_to_fit(usable_images(dataset, skip_bad=skip_bad), share, division.seed)


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
    """Read the images with boxes to evaluate on.

    Args:
        data: a path or a data set object.
        split: the split to evaluate on; the validation or test split when None.
        layout: the layout of the path; detected automatically when None.
        names: the classes of the run.
        record: the record of the fit, if known.
        skip_bad: skip damaged images.
        unlearned: classes without objects in fitting; their objects are ignored.

    Returns:
        The images, and a dictionary of ``"held_out"`` (whether only images that were not fitted on are used)
        and ``"trained_on"`` (number of used images that were fitted on; None if unknown).

    Raises:
        UserError: the data are invalid or have objects of other classes, or images are damaged.

    Examples:
        >>> detection_to_measure("nowhere", None, None, ("cat",), None)
        Traceback (most recent call last):
        sppnet.errors.UserError: nowhere: expected a folder of labelled images, got no such folder
    """
    undivided = is_undivided(data, split, layout)
    if not isinstance(data, DetectionSet):
        name = default_split(data, "evaluate", layout) if split is None else split
        data = read_detection(data, name, layout)
    dataset = detection_for(_without_objects_of(data, set(unlearned) - set(names)), names)
    return images_to_evaluate(usable_images(dataset, skip_bad=skip_bad), record, undivided=undivided)


def classification_to_measure(
    data: ClassificationData,
    split: str | None,
    layout: str | None,
    names: tuple[str, ...],
    record: FittedOn | None,
    *,
    skip_bad: bool = False,
) -> tuple[ClassificationSet, dict[str, object]]:
    """Read the images of one class each to evaluate on; otherwise like `detection_to_measure`.

    Examples:
        >>> classification_to_measure("nowhere", None, None, ("cat",), None)
        Traceback (most recent call last):
        sppnet.errors.UserError: nowhere: expected a folder of labelled images, got no such folder
    """
    undivided = is_undivided(data, split, layout)
    if not isinstance(data, ClassificationSet):
        name = default_split(data, "evaluate", layout) if split is None else split
        data = read_classification(data, name, layout)
    dataset = classification_for(data, names)
    return images_to_evaluate(usable_images(dataset, skip_bad=skip_bad), record, undivided=undivided)


def _without_objects_of(dataset: DetectionSet, names: Collection[str]) -> DetectionSet:
    """Remove the objects of some classes; ``notes`` counts them."""
    numbers = torch.tensor([k for k, name in enumerate(dataset.names) if name in names], dtype=torch.int64)
    count = 0

    def changed(item: DetectionItem) -> DetectionItem:
        nonlocal count
        removed = torch.isin(item.truth.labels, numbers)
        count += int(removed.sum())
        return replace(item, truth=item.truth[~removed]) if bool(removed.any()) else item

    items = tuple(map(changed, dataset.items))
    if not count:
        return dataset
    note = f"{count} objects not counted, of classes that fitting left out: {', '.join(sorted(names))}"
    return replace(dataset, items=items, notes=(*dataset.notes, note))

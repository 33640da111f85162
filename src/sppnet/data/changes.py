"""Change data sets: renumber classes, remove unused classes, remove images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from sppnet.errors import UserError
from sppnet.inputs.words import plural, shortened
from sppnet.structures import ClassificationSet, DetectionItem, DetectionSet

AnySet = TypeVar("AnySet", ClassificationSet, DetectionSet)


def detection_for(dataset: DetectionSet, names: tuple[str, ...]) -> DetectionSet:
    """Renumber the classes of a data set to those of a detector.

    Args:
        dataset: images with boxes.
        names: the class names in the new order.

    Returns:
        The data set with the new class numbers.

    Raises:
        UserError: the data set has objects of other classes; the message lists them.

    Examples:
        >>> from sppnet.structures import Boxes, DetectionItem, GroundTruth, ImageSize
        >>> boxes = Boxes(torch.tensor([[0.0, 0, 4, 4]]), ImageSize(8, 8))
        >>> items = (DetectionItem(Path("a.jpg"), "a", GroundTruth.make(boxes, torch.tensor([0]), ("cat",))),)
        >>> data = DetectionSet(Path(), "coco", "val", ("cat",), (1,), items)
        >>> detection_for(data, ("dog", "cat")).items[0].truth.labels.tolist()
        [1]
    """
    used = {label for item in dataset.items for label in item.truth.labels.tolist()}
    numbers = torch.tensor(_numbers(dataset.root, dataset.names, used, names), dtype=torch.int64)
    ids = dict(zip(dataset.names, dataset.category_ids, strict=True))
    for name in names:
        taken = (number for number in ids.values() if isinstance(number, int))
        ids.setdefault(name, max(taken, default=0) + 1)
    items = tuple(
        replace(item, truth=replace(item.truth, labels=numbers[item.truth.labels], names=names))
        for item in dataset.items
    )
    return replace(dataset, names=names, category_ids=tuple(ids[name] for name in names), items=items)


def classification_for(dataset: ClassificationSet, names: tuple[str, ...]) -> ClassificationSet:
    """Renumber the classes of a data set to those of a classifier.

    Args:
        dataset: images of one class each.
        names: the class names in the new order.

    Returns:
        The data set with the new class numbers.

    Raises:
        UserError: the data set has images of other classes; the message lists them.

    Examples:
        >>> from sppnet.structures import ClassificationItem
        >>> data = ClassificationSet(Path(), "folders", "", ("cat",), (ClassificationItem(Path("a.jpg"), 0),))
        >>> classification_for(data, ("dog", "cat")).items[0].label
        1
    """
    numbers = _numbers(dataset.root, dataset.names, {item.label for item in dataset.items}, names)
    items = tuple(replace(item, label=numbers[item.label]) for item in dataset.items)
    return replace(dataset, names=names, items=items)


def without_empty_classes(dataset: DetectionSet, difficult: bool = True) -> DetectionSet:
    """Remove the classes without an object in this split, such as the supercategory 0 of some exports.

    A class with crowds only is removed together with its crowds. ``notes`` lists the removed classes;
    ``category_ids`` has the ids of the others.

    Args:
        dataset: images with boxes.
        difficult: whether difficult objects count.

    Returns:
        The data set without the empty classes.

    Raises:
        UserError: the data set has no object.

    Examples:
        >>> from sppnet.structures import Boxes, DetectionItem, GroundTruth, ImageSize
        >>> boxes = Boxes(torch.tensor([[0.0, 0, 4, 4]]), ImageSize(8, 8))
        >>> truth = GroundTruth.make(boxes, torch.tensor([1]), ("animals", "cat"))
        >>> items = (DetectionItem(Path("a.jpg"), "a", truth),)
        >>> data = DetectionSet(Path(), "coco", "train", truth.names, (0, 3), items)
        >>> without_empty_classes(data).category_ids
        (3,)
    """
    used: set[int] = set()
    for item in dataset.items:
        counted = ~item.truth.crowd if difficult else ~(item.truth.crowd | item.truth.difficult)
        used.update(item.truth.labels[counted].tolist())
    kept = sorted(used)
    if len(kept) == len(dataset.names):
        return dataset
    if not kept:
        raise UserError(dataset.root, f"an object in {plural(len(dataset.items), 'image')}", "none")
    names = tuple(dataset.names[number] for number in kept)
    numbers = torch.full((len(dataset.names),), -1, dtype=torch.int64)
    numbers[kept] = torch.arange(len(kept))

    def changed(item: DetectionItem) -> DetectionItem:
        labels = numbers[item.truth.labels]
        truth = item.truth[labels >= 0]
        return replace(item, truth=replace(truth, labels=labels[labels >= 0], names=names))

    dropped = [name for number, name in enumerate(dataset.names) if number not in used]
    note = f"{plural(len(dropped), 'class', 'classes')} without objects left out: {shortened(dropped)}"
    return replace(
        dataset,
        names=names,
        category_ids=tuple(dataset.category_ids[number] for number in kept),
        items=tuple(map(changed, dataset.items)),
        notes=(*dataset.notes, note),
    )


def drop_items(dataset: AnySet, paths: Iterable[str | os.PathLike[str]]) -> AnySet:
    """Remove images from a data set, such as the damaged ones of `check_images`; ``notes`` counts them.

    Args:
        dataset: images with boxes or classes.
        paths: the images to remove.

    Raises:
        UserError: no image remains.

    Examples:
        >>> from sppnet.structures import ClassificationItem
        >>> items = (ClassificationItem(Path("a.jpg"), 0), ClassificationItem(Path("b.jpg"), 0))
        >>> data = ClassificationSet(Path(), "folders", "", ("cat",), items)
        >>> drop_items(data, ["b.jpg"]).notes
        ('1 of 2 images left out: b.jpg',)
    """
    unwanted = {Path(path) for path in paths}
    kept = [item for item in dataset.items if item.path not in unwanted]
    left_out = [item.path.name for item in dataset.items if item.path in unwanted]
    if not left_out:
        return dataset
    count = f"{len(left_out)} of {plural(len(dataset.items), 'image')}"
    if not kept:
        raise UserError(dataset.root, "at least one usable image", f"{count} left out")
    note = f"{count} left out: {shortened(left_out)}"
    return replace(dataset, items=tuple(kept), notes=(*dataset.notes, note))


def _numbers(root: Path, names: tuple[str, ...], used: set[int], expected: tuple[str, ...]) -> list[int]:
    """Return the new number of each class; -1 for an unused class that is not among ``expected``."""
    unknown = [names[number] for number in sorted(used) if names[number] not in expected]
    if unknown:
        raise UserError(root, f"only the classes {', '.join(expected)}", f"also {', '.join(unknown)}")
    return [expected.index(name) if name in expected else -1 for name in names]

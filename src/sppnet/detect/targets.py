"""Training targets of proposals, balanced sampling, and selection of classes with examples."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sppnet.data import without_empty_classes
from sppnet.detect.stage_options import TargetOptions
from sppnet.ops.boxes import ioa, iou
from sppnet.structures import Boxes, DetectionItem, DetectionSet, GroundTruth


def class_overlaps(boxes: Boxes, truth: GroundTruth) -> Tensor:
    """Compute the highest IoU ``[N, K]`` of each box with an object of each class; crowds are ignored."""
    best = torch.zeros(len(boxes), len(truth.names))
    for number in range(len(truth.names)):
        of_class = (truth.labels == number) & ~truth.crowd
        if bool(of_class.any()):
            best[:, number] = iou(boxes.xyxy, truth.boxes.xyxy[of_class]).amax(1)
    return best


def svm_targets(boxes: Boxes, truth: GroundTruth, options: TargetOptions) -> Tensor:
    """Compute the targets of the SVMs (He et al. 2015, section 4.1, with proposals as additional positives).

    Args:
        boxes: ``[N, 4]``, proposals of an image.
        truth: objects of the image; proposals in crowds and on difficult objects are not used.
        options: the options.

    Returns:
        int8 ``[N, K]``: +1 for an IoU of at least ``positive_iou`` with an object of the class, -1 below
        ``negative_iou`` (including objects of other classes), 0 otherwise.
    """
    best = class_overlaps(boxes, truth)
    targets = (best >= options.positive_iou).to(torch.int8) - (best < options.negative_iou).to(torch.int8)
    for number in range(len(truth.names)):
        of_class = truth.labels == number
        crowd, hard = of_class & truth.crowd, of_class & truth.difficult
        if bool(crowd.any()):
            inside = ioa(boxes.xyxy, truth.boxes.xyxy[crowd]).amax(1) >= options.crowd_share
            targets[inside & (targets[:, number] < 0), number] = 0
        if bool(hard.any()):
            near = iou(boxes.xyxy, truth.boxes.xyxy[hard]).amax(1) >= options.negative_iou
            targets[near, number] = 0
    return targets


def choose_on_objects(
    windows: Boxes, truth: GroundTruth, least: float, per_object: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose at most ``per_object`` random proposals with a minimum IoU per object.

    Args:
        windows: N proposals of an image.
        truth: objects of the image; crowds and difficult objects are ignored.
        least: minimum IoU.
        per_object: maximum number of proposals per object.
        draw: random generator.

    Returns:
        int64 twice: indices of proposals, ascending, and the object of each.
    """
    if not len(truth) or not len(windows):
        none = torch.zeros(0, dtype=torch.int64)
        return none, none
    overlaps = iou(windows.xyxy, truth.boxes.xyxy)
    overlaps[:, truth.crowd | truth.difficult] = 0
    best, owner = overlaps.max(1)
    able = (best >= least).nonzero()[:, 0]
    able = able[torch.randperm(len(able), generator=draw)]
    # The rank of each proposal among those of its object, in random order; the first ones are selected.
    order = torch.sort(owner[able], stable=True).indices
    sorted_owner = owner[able][order]
    _, counts = torch.unique_consecutive(sorted_owner, return_counts=True)
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(able)) - starts.repeat_interleave(counts)
    chosen = able[order][rank < per_object].sort().values
    return chosen, owner[chosen]


def draw_evenly(
    groups: Tensor, images: Tensor, priority: Tensor, count: int, draw: torch.Generator
) -> Tensor:
    """Choose ``count`` of N examples, evenly over groups and, within a group, evenly over images.

    Groups are filled in rounds, so that small groups are complete; likewise the images of a group. Examples
    of the same group and image are chosen by ascending priority, ties at random.

    Args:
        groups: int64 ``[N]``, such as class numbers.
        images: int64 ``[N]``.
        priority: ``[N]``.
        count: number of examples; all if there are fewer.
        draw: random generator for ties.

    Returns:
        int64 indices, ascending.

    Examples:
        >>> groups, images = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 2])
        >>> none = torch.zeros(4)
        >>> draw_evenly(groups, images, none, 3, torch.Generator().manual_seed(0))[1:].tolist()
        [2, 3]
    """
    if count >= len(groups):
        return torch.arange(len(groups))
    order = torch.randperm(len(groups), generator=draw)
    order = order[priority[order].sort(stable=True).indices]
    _, cells = torch.stack([groups, images], 1).unique(dim=0, return_inverse=True)
    # A second permutation, because otherwise images with low indices would win all ties within a group.
    in_cell = _ranks(cells, order)
    order = torch.randperm(len(groups), generator=draw)
    order = order[in_cell[order].sort(stable=True).indices]
    in_group = _ranks(groups, order)
    order = torch.randperm(len(groups), generator=draw)
    order = order[in_group[order].sort(stable=True).indices]
    return order[:count].sort().values


def _ranks(keys: Tensor, order: Tensor) -> Tensor:
    """Compute the rank ``[N]`` of each element among the elements with its key, in the order ``order``."""
    sorted_keys, index = keys[order].sort(stable=True)
    _, counts = sorted_keys.unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[order[index]] = torch.arange(len(order)) - starts.repeat_interleave(counts)
    return ranks


def learnable(dataset: DetectionSet, options: TargetOptions) -> DetectionSet:
    """Remove the classes without positive examples; ``notes`` lists them.

    These are classes without objects, or whose objects are all crowds, difficult or without area.

    Args:
        dataset: the data set.
        options: options of the training targets.

    Returns:
        The data set with the other classes.

    Raises:
        UserError: no class remains.
    """
    if options.positives == "objects":
        return without_empty_classes(dataset, difficult=options.difficult)
    learned: set[int] = set()
    for item in dataset.items:
        own = svm_targets(item.truth.boxes.clip(), item.truth, options)
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
    """List the class names that are not in ``after``."""
    return [name for name in before.names if name not in after.names]

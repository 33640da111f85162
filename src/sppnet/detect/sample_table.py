"""Training features of the SVMs within a budget, and their replacement by hard negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.detect.stage_options import SvmOptions
from sppnet.detect.targets import draw_evenly


class SampleTable:
    """Training features of the SVMs, in memory allocated once for the maximum number.

    Args:
        images: number of images.
        limit: maximum number of feature vectors.
    """

    def __init__(self, images: int, limit: int) -> None:
        self.used: list[set[int]] = [set() for _ in range(images)]
        self.scale = 1.0
        self.limit = limit
        self._count = 0
        self._rows = torch.empty(0, 0)
        self._targets = torch.empty(0, 0, dtype=torch.int8)
        self._origin = torch.zeros(limit, 2, dtype=torch.int64)

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Tensor:
        """The features, float32 ``[N, D]``, scaled."""
        return self._rows[: self._count]

    @property
    def targets(self) -> Tensor:
        """The targets, int8 ``[N, K]``."""
        return self._targets[: self._count]

    @property
    def images(self) -> Tensor:
        """The image of each feature vector, int64 ``[N]``."""
        return self._origin[: self._count, 0]

    @property
    def free(self) -> int:
        """Number of feature vectors that can be added."""
        return self.limit - self._count

    def add(self, image: int, rows: Tensor, targets: Tensor, windows: Tensor) -> None:
        """Add features ``[n, D]`` of proposals ``[n]`` of an image, at most ``free``."""
        assert len(rows) <= self.free
        if not len(self._rows):
            # Pages that are never written to take no memory.
            self._rows = torch.empty(self.limit, rows.shape[1])
            self._targets = torch.empty(self.limit, targets.shape[1], dtype=torch.int8)
        end = slice(self._count, self._count + len(rows))
        torch.mul(rows, self.scale, out=self._rows[end])
        self._targets[end] = targets
        self._origin[end, 0] = image
        self._origin[end, 1] = windows
        self._count += len(rows)
        self.used[image].update(windows.tolist())

    def remove(self, which: Tensor) -> None:
        """Remove feature vectors by index; their proposals may be added again."""
        for image, window in self._origin[which].tolist():
            self.used[image].discard(window)
        remaining = torch.ones(self._count, dtype=torch.bool)
        remaining[which] = False
        self._count = 0
        # Rows only move to lower indices, a few at a time, without a second copy of the table.
        for some in remaining.nonzero()[:, 0].split(1024):
            target = slice(self._count, self._count + len(some))
            for part in (self._rows, self._targets, self._origin):
                part[target] = part[some]
            self._count += len(some)

    def rescale(self, norm: float) -> None:
        """Scale the features, including later ones, so that the current mean norm is ``norm``."""
        self.scale = norm / float(self.rows.norm(dim=1).mean().clamp(min=1e-12))
        self.rows.mul_(self.scale)


@dataclass(frozen=True)
class Sample:
    """Candidate training examples of one image.

    Attributes:
        windows: int64 ``[n]``, indices of proposals, ascending.
        groups: int64 ``[n]``, the class of each example, K for the background.
        priority: float32 ``[n]``; examples of the same group and image are selected in ascending order.
    """

    windows: Tensor
    groups: Tensor
    priority: Tensor


def first_samples_within(
    samples: Sequence[Sample], classes: int, limit: int, hard_share: float, draw: torch.Generator
) -> list[Tensor]:
    """Select the examples of the first sample within the budget.

    If all examples fit, all are selected, without random numbers. Otherwise ``hard_share`` of the budget
    remains free, half of the rest is for the background, and each half is drawn evenly over classes and
    images.

    Args:
        samples: examples of each image.
        classes: number of classes K.
        limit: maximum number of examples.
        hard_share: fraction of ``limit`` that is reserved for hard negatives.
        draw: random generator.

    Returns:
        Indices of the selected proposals of each image.
    """
    images, groups, priority = _joined(samples)
    if len(groups) <= limit:
        return [sample.windows for sample in samples]
    room = limit - int(hard_share * limit)
    background = groups == classes
    some = min(int(background.sum()), max(room // 2, room - int((~background).sum())))
    taken = torch.zeros(len(groups), dtype=torch.bool)
    for mine, count in ((~background, room - some), (background, some)):
        index = mine.nonzero()[:, 0]
        chosen = draw_evenly(groups[index], images[index], priority[index], count, draw)
        taken[index[chosen]] = True
    return _split(samples, taken)


def hard_samples_within(samples: Sequence[Sample], room: int, draw: torch.Generator) -> list[Tensor]:
    """Select at most ``room`` hard negatives in total, evenly over classes and images, by image."""
    images, groups, priority = _joined(samples)
    taken = torch.zeros(len(groups), dtype=torch.bool)
    taken[draw_evenly(groups, images, priority, room, draw)] = True
    return _split(samples, taken)


def make_room(
    table: SampleTable, scores: Tensor, count: int, options: SvmOptions, draw: torch.Generator
) -> None:
    """Remove features to make room for hard negatives, at most for their share of the budget.

    Negatives with low scores of all SVMs are removed first, lowest scores first, because they do not change
    the SVMs. If these are too few, and hard negatives have less than their share of the budget, examples of
    objects are removed, duplicates first.

    Args:
        table: the features.
        scores: ``[N, K]``, decision scores of the features by the current SVMs.
        count: number of hard negatives.
        options: minimum score of hard negatives, and their share of the budget.
        draw: random generator.
    """
    missing = count - table.free
    if missing <= 0:
        return
    negative = (table.targets <= 0).all(1)
    worst = scores.masked_fill(table.targets >= 0, -torch.inf).amax(1)
    easy = (negative & (worst <= options.add_above)).nonzero()[:, 0]
    gone = easy[worst[easy].sort(stable=True).indices[:missing]]
    hard = int((negative & (worst > options.add_above)).sum())
    reserved = int(options.hard_share * table.limit) - hard
    short = min(missing, reserved - table.free) - len(gone)
    if short > 0:
        positive = (~negative).nonzero()[:, 0]
        groups = table.targets[positive].argmax(1)
        stay = draw_evenly(
            groups, table.images[positive], torch.zeros(len(positive)), max(0, len(positive) - short), draw
        )
        lost = torch.ones(len(positive), dtype=torch.bool)
        lost[stay] = False
        gone = torch.cat([gone, positive[lost]])
    if len(gone):
        table.remove(gone)


def _joined(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Concatenate image, group and priority of all examples."""
    counts = torch.tensor([len(sample.windows) for sample in samples])
    images = torch.arange(len(samples)).repeat_interleave(counts)
    groups = torch.cat([sample.groups for sample in samples])
    return images, groups, torch.cat([sample.priority for sample in samples])


def _split(samples: Sequence[Sample], taken: Tensor) -> list[Tensor]:
    """Group the selected proposals by image."""
    parts = taken.split([len(sample.windows) for sample in samples])
    return [sample.windows[part] for sample, part in zip(samples, parts, strict=True)]

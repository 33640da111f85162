"""The training rows of the SVMs within their budget: what is taken, what makes room for hard negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.detect.stage_options import SvmOptions
from sppnet.detect.targets import draw_evenly


class RowTable:
    """The training rows so far, in memory laid out once for the most that there may be.

    Args:
        images: how many.
        limit: rows at most.
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
        """float32 ``[N, D]``, scaled."""
        return self._rows[: self._count]

    @property
    def targets(self) -> Tensor:
        """int8 ``[N, K]``."""
        return self._targets[: self._count]

    @property
    def images(self) -> Tensor:
        """int64 ``[N]``: the image of each row."""
        return self._origin[: self._count, 0]

    @property
    def free(self) -> int:
        """How many rows more there is room for."""
        return self.limit - self._count

    def add(self, image: int, rows: Tensor, targets: Tensor, windows: Tensor) -> None:
        """Add rows that there is room for."""
        assert len(rows) <= self.free
        if not len(self._rows):
            # Pages that are never written to take no memory.
            self._rows = torch.empty(self.limit, rows.shape[1])
            self._targets = torch.empty(self.limit, targets.shape[1], dtype=torch.int8)
        place = slice(self._count, self._count + len(rows))
        torch.mul(rows, self.scale, out=self._rows[place])
        self._targets[place] = targets
        self._origin[place, 0] = image
        self._origin[place, 1] = windows
        self._count += len(rows)
        self.used[image].update(windows.tolist())

    def remove(self, which: Tensor) -> None:
        """Remove rows; their windows may be added again."""
        for image, window in self._origin[which].tolist():
            self.used[image].discard(window)
        kept = torch.ones(self._count, dtype=torch.bool)
        kept[which] = False
        self._count = 0
        # Rows move to lower places only, a few at a time: no second copy of the table.
        for some in kept.nonzero()[:, 0].split(1024):
            place = slice(self._count, self._count + len(some))
            for part in (self._rows, self._targets, self._origin):
                part[place] = part[some]
            self._count += len(some)

    def rescale(self, norm: float) -> None:
        """Make ``norm`` the mean norm of the rows, and scale those to come alike."""
        self.scale = norm / float(self.rows.norm(dim=1).mean().clamp(min=1e-12))
        self.rows.mul_(self.scale)


@dataclass(frozen=True)
class Sample:
    """Windows of one image that are to become rows.

    Attributes:
        windows: int64 ``[n]``, ascending.
        groups: int64 ``[n]``: the class that each is an example of, K for the background.
        priority: float32 ``[n]``: of several alike, those of the lowest number come first.
    """

    windows: Tensor
    groups: Tensor
    priority: Tensor


def first_samples_within(
    samples: Sequence[Sample], classes: int, limit: int, hard_share: float, draw: torch.Generator
) -> list[Tensor]:
    """The windows of each image that fit into the budget.

    Where all fit, all are taken and nothing is drawn. Otherwise ``hard_share`` of it stays free, half of
    the rest goes to the background, and each half is drawn evenly over classes and images.

    Args:
        samples: one an image.
        classes: K.
        limit: rows at most.
        hard_share: share of ``limit`` that is kept free for hard negatives.
        draw: of what is taken at random.
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
    """The hard negatives of each image that fit into ``room``: evenly over classes and images."""
    images, groups, priority = _joined(samples)
    taken = torch.zeros(len(groups), dtype=torch.bool)
    taken[draw_evenly(groups, images, priority, room, draw)] = True
    return _split(samples, taken)


def make_room(
    table: RowTable, scores: Tensor, wanted: int, options: SvmOptions, draw: torch.Generator
) -> None:
    """Remove rows until there is room for ``wanted`` hard negatives, or for as many as are reserved.

    Negatives that every SVM is sure of go first, the surest ones before the others: they do not change the
    SVMs. Where they are too few, and hard negatives have less than their share of the budget, examples of
    objects go, those that repeat others first.

    Args:
        table: the rows.
        scores: ``[N, K]``: the present SVMs' scores of them.
        wanted: hard negatives that were found.
        options: from which score on a negative is hard, and the share of hard ones.
        draw: of what is removed at random.
    """
    missing = wanted - table.free
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
    """Image, group and priority of all windows of all images."""
    counts = torch.tensor([len(sample.windows) for sample in samples])
    images = torch.arange(len(samples)).repeat_interleave(counts)
    groups = torch.cat([sample.groups for sample in samples])
    return images, groups, torch.cat([sample.priority for sample in samples])


def _split(samples: Sequence[Sample], taken: Tensor) -> list[Tensor]:
    """The taken windows of each image."""
    parts = taken.split([len(sample.windows) for sample in samples])
    return [sample.windows[part] for sample, part in zip(samples, parts, strict=True)]

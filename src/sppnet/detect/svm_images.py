"""SVMs fitted image by image, with hard negatives by the rule of the paper or of its release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.detect.sources import RowSource
from sppnet.detect.stage_options import SvmOptions, TargetOptions
from sppnet.detect.svm_rounds import solver_options
from sppnet.detect.targets import class_overlaps
from sppnet.errors import UserError
from sppnet.learn import LinearModel, NegativeCache, NegativeRule, fit_linear_svm
from sppnet.ops.boxes import nms
from sppnet.progress import track
from sppnet.structures import GroundTruth

_NORM_IMAGES = 200
_NORM_WINDOWS = 200
_FRESH_SHARE = 10  # a refit frees at least a tenth of the capacity
_BEFORE_THE_FIRST = 1e9  # score of negatives before the first fit


def mean_norm_scale(source: RowSource, mean_norm: float, seed: int) -> float:
    """Compute the factor that scales features to a mean norm, from at most 200 proposals of 200 images."""
    draw = torch.Generator().manual_seed(seed)
    total, count = 0.0, 0
    for i in torch.randperm(len(source.windows), generator=draw)[:_NORM_IMAGES].tolist():
        which = torch.randperm(len(source.windows[i]), generator=draw)[:_NORM_WINDOWS]
        if len(which):
            total += float(source.rows(i, which).norm(dim=1).sum())
            count += len(which)
    return mean_norm * count / total if total > 0 else 1.0


@dataclass
class _Class:
    """State of a class during fitting."""

    number: int
    positives: Tensor
    cache: NegativeCache
    draw: torch.Generator
    model: LinearModel | None = None
    left_out: int = 0

    def add(self, rows: Tensor, scores: Tensor, keys: Tensor, options: SvmOptions) -> None:
        """Add negatives of one image; if there is no room, refit and evict easy negatives.

        Before the first fit, a random subset of the negatives is used, because none is harder than others.
        """
        capacity = self.cache.rule.capacity
        if len(self.cache) + len(rows) > capacity and _FRESH_SHARE * self.cache.fresh > capacity:
            self.refit(options, last=False)
            if self.model is not None:
                scores = self.model.scores(rows)[:, 0]
        room = capacity - len(self.cache)
        if self.model is None and len(rows) > room:
            chosen = torch.randperm(len(rows), generator=self.draw)[:room].sort().values
            self.left_out += len(rows) - room
            rows, scores, keys = rows[chosen], scores[chosen], keys[chosen]
        self.cache = self.cache.add(rows, scores, keys)

    def refit(self, options: SvmOptions, *, last: bool) -> None:
        if not len(self.positives) or not self.cache.pieces or not (self.cache.fresh or self.model is None):
            return
        negatives = self.cache.rows
        rows = torch.cat([self.positives, negatives])
        targets = torch.cat([torch.ones(len(self.positives)), -torch.ones(len(negatives))]).to(torch.int8)
        self.model = fit_linear_svm(rows, targets[:, None], solver_options(options), self.model)
        if not last:
            scores = self.model.scores(rows[len(self.positives) :])[:, 0]
            del rows
            self.cache = self.cache.evict(scores)


def fit_by_images(
    source: RowSource,
    truths: Sequence[GroundTruth],
    options: SvmOptions,
    target: TargetOptions,
    seed: int,
    *,
    quiet: bool,
) -> tuple[LinearModel, dict[str, int]]:
    """Fit one SVM per class to objects and hard negatives, image by image (He et al. 2015, section 4.1).

    All negatives of the first image are used for a first fit; of later images, those that score above
    ``add_above``. A class is refitted after ``refit_after`` additions and at the end of a pass; then its
    negatives that score below ``evict_below`` are removed. Negatives that would exceed ``negatives_mb`` cause
    an earlier fit; if they still exceed it, the hardest remain, and the counts report the others.

    Args:
        source: features of the proposals of each image, of which the first are the boxes of objects.
        truths: the objects of the same images.
        options: options of the SVMs.
        target: options of the training targets.
        seed: seed of the proposals for the mean norm.
        quiet: hide the progress bar.

    Returns:
        The SVMs, for unscaled features (the score of a class without objects is -2), and counts.

    Raises:
        UserError: there are no objects.
    """
    scale = mean_norm_scale(source, options.mean_norm, seed)
    positives = _positives(source, truths, target, scale)
    learned = sum(len(rows) > 0 for rows in positives)
    if not learned:
        raise UserError("data", "annotated objects to learn from", "images without any")
    capacity = max(100, options.negatives_mb * 2**20 // (4 * source.length * learned))
    rule = NegativeRule(options.add_above, options.evict_below, options.refit_after, capacity)
    draw = torch.Generator().manual_seed(seed)
    states = [_Class(k, rows, NegativeCache.empty(rule), draw) for k, rows in enumerate(positives)]
    started = False
    added = 0
    for _ in range(options.mining_rounds):
        for i in track(range(len(truths)), "Mining negatives", quiet=quiet):
            if len(source.windows[i]):
                added += _mine(source, truths[i], i, states, scale, options, target)
                for state in states:
                    if not started or state.cache.due:
                        state.refit(options, last=False)
                started = True
        for state in states:
            state.refit(options, last=True)
    counts = {
        "positives": sum(len(state.positives) for state in states),
        "negatives": sum(len(state.cache) for state in states),
        "negatives_seen": added,
        "negatives_left_out": sum(state.left_out + state.cache.dropped for state in states),
    }
    return _joined(states, source.length, scale), counts


def _positives(
    source: RowSource, truths: Sequence[GroundTruth], target: TargetOptions, scale: float
) -> list[Tensor]:
    classes = len(truths[0].names)
    parts: list[list[Tensor]] = [[] for _ in range(classes)]
    for i, truth in enumerate(truths):
        able = ~truth.crowd & (truth.difficult.logical_not() | target.difficult)
        if not bool(able.any()):
            continue
        rows = source.rows(i, torch.arange(len(truth))) * scale
        for number in range(classes):
            mine = able & (truth.labels == number)
            if bool(mine.any()):
                parts[number].append(rows[mine])
    none = torch.zeros(0, source.length)
    return [torch.cat(part) if part else none for part in parts]


def _mine(
    source: RowSource,
    truth: GroundTruth,
    i: int,
    states: Sequence[_Class],
    scale: float,
    options: SvmOptions,
    target: TargetOptions,
) -> int:
    """Add the hard negatives of one image to each class; return their number."""
    windows = source.windows[i]
    overlaps = class_overlaps(windows, truth)
    near_crowd = torch.zeros(len(windows), dtype=torch.bool)
    if bool(truth.crowd.any()):
        crowds = GroundTruth.make(truth.boxes[truth.crowd], truth.labels[truth.crowd], truth.names)
        near_crowd = class_overlaps(windows, crowds).amax(1) > 0
    fitted = [state.model for state in states]
    scores = torch.full((len(windows), len(states)), _BEFORE_THE_FIRST)
    known = [k for k, model in enumerate(fitted) if model is not None]
    if known:
        models = [model for model in fitted if model is not None]
        joined = LinearModel(
            torch.cat([m.weight for m in models]) * scale, torch.cat([m.bias for m in models])
        )
        scores[:, known] = source.scores(i, joined)
    keys = torch.arange(len(windows)) + (i << 32)
    lines = source.lines(i) if options.negatives == "release" else None
    takes: list[Tensor] = []
    for state in states:
        able = (overlaps[:, state.number] < target.negative_iou) & ~near_crowd
        index = able.nonzero()[:, 0]
        if not len(state.positives):
            index = index[:0]
        mine = scores[index, state.number]
        hard = index[state.cache.wanted(mine, keys[index])]
        takes.append(_different(hard, scores[:, state.number], windows.xyxy, lines, options))
    every = torch.unique(torch.cat(takes))
    if not len(every):
        return 0
    rows = source.rows(i, every) * scale
    for state, take in zip(states, takes, strict=True):
        position = torch.searchsorted(every, take)
        if len(take):
            state.add(rows[position], scores[take, state.number], keys[take], options)
    return sum(map(len, takes))


def _different(
    index: Tensor, scores: Tensor, boxes: Tensor, lines: Tensor | None, options: SvmOptions
) -> Tensor:
    """Remove duplicates among the proposals ``index``; return the others, ascending."""
    if not len(index):
        return index
    if lines is None:
        # Of two duplicates, the harder one remains (He et al. 2015, section 4.1).
        return index[nms(boxes[index], scores[index], options.alike)].sort().values
    _, inverse = torch.unique(lines[index], dim=0, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(index))
    first = first.scatter_reduce(0, inverse, torch.arange(len(index)), "amin")
    return index[first].sort().values


def _joined(states: Sequence[_Class], length: int, scale: float) -> LinearModel:
    weight, bias = torch.zeros(len(states), length), torch.full((len(states),), -2.0)
    for state in states:
        if state.model is not None:
            weight[state.number], bias[state.number] = state.model.weight[0] * scale, state.model.bias[0]
    return LinearModel(weight, bias)

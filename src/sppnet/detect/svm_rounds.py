"""SVMs fitted to a sample of all images and, in rounds, to their hard negatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.detect.sample_table import (
    Sample,
    SampleTable,
    first_samples_within,
    hard_samples_within,
    make_room,
)
from sppnet.detect.sources import RowSource
from sppnet.detect.stage_options import SvmOptions, TargetOptions
from sppnet.detect.targets import choose_on_objects, svm_targets
from sppnet.learn import LinearModel, fit_linear_svm
from sppnet.learn import SvmOptions as SolverOptions
from sppnet.ops.boxes import nms
from sppnet.progress import track
from sppnet.structures import GroundTruth


@dataclass(frozen=True)
class _Mining:
    """Features, objects, options and random generator."""

    source: RowSource
    truths: Sequence[GroundTruth]
    options: SvmOptions
    target: TargetOptions
    draw: torch.Generator
    quiet: bool

    def targets(self, i: int, which: Tensor | None = None) -> Tensor:
        """Compute the targets ``[N, K]`` of the proposals of image i, or of ``which`` of them."""
        windows = self.source.windows[i]
        return svm_targets(windows if which is None else windows[which], self.truths[i], self.target)


def fit_in_rounds(
    source: RowSource,
    truths: Sequence[GroundTruth],
    options: SvmOptions,
    target: TargetOptions,
    draw: torch.Generator,
    seconds: Callable[[str], None],
    *,
    quiet: bool,
) -> tuple[LinearModel, dict[str, int]]:
    """Fit one SVM per class to a sample, then repeatedly add hard negatives and refit.

    Args:
        source: features of the proposals of each image, of which the first are the boxes of objects.
        truths: the objects of the same images.
        options: options of the SVMs.
        target: options of the training targets.
        draw: random generator.
        seconds: function that receives ``"mining"`` or ``"svm"`` when such a stage ends.
        quiet: hide progress bars.

    Returns:
        The SVMs, for unscaled features, and counts: ``"rows"``, ``"rows_left_out"`` (of the first sample),
        ``"negatives_left_out"`` (hard negatives that did not fit, in all rounds), ``"mining_rounds"``.
    """
    mining = _Mining(source, truths, options, target, draw, quiet)
    table = SampleTable(len(truths), options.rows)
    left_out = _add_first_samples(table, mining)
    table.rescale(options.mean_norm)
    seconds("mining")
    model = _fit(table, options, None)
    seconds("svm")
    rounds = hard_left_out = 0
    for number in range(options.mining_rounds):
        added, missed = _add_hard_samples(table, mining, model, number)
        hard_left_out += missed
        seconds("mining")
        if added <= options.enough_news * len(table):
            break
        model = _fit(table, options, model)
        rounds += 1
        seconds("svm")
    counts = {"rows": len(table), "rows_left_out": left_out, "negatives_left_out": hard_left_out}
    return model, {**counts, "mining_rounds": rounds}


def _add_first_samples(table: SampleTable, mining: _Mining) -> int:
    """Add the features of the first sample; return the number of those that did not fit."""
    options, images = mining.options, range(len(mining.truths))
    # Equal shares of all images, so that large data sets fit into the same memory.
    share = max(8, options.rows // (2 * len(images)))
    samples = [_first_sample(mining, i, share) for i in images]
    classes = len(mining.truths[0].names)
    chosen = first_samples_within(samples, classes, options.rows, options.hard_share, mining.draw)
    for i, which in enumerate(track(chosen, "Sampling windows", quiet=mining.quiet)):
        if len(which):
            table.add(i, mining.source.rows(i, which), mining.targets(i, which), which)
    return sum(len(sample.windows) for sample in samples) - len(table)


def _add_hard_samples(
    table: SampleTable, mining: _Mining, model: LinearModel, number: int
) -> tuple[int, int]:
    """Add the hard negatives of a round; return the numbers of added ones and of those that did not fit."""
    samples = [
        _hard(mining, i, model, table.used[i], number)
        for i in track(range(len(mining.truths)), "Mining negatives", quiet=mining.quiet)
    ]
    found = sum(len(sample.windows) for sample in samples)
    if found > table.free:
        make_room(table, _scaled(model, table).scores(table.rows), found, mining.options, mining.draw)
    added = 0
    for i, which in enumerate(hard_samples_within(samples, table.free, mining.draw)):
        if len(which):
            table.add(i, mining.source.rows(i, which), mining.targets(i, which), which)
            added += len(which)
    return added, found - added


def _first_sample(mining: _Mining, i: int, share: int) -> Sample:
    """Select objects, positive proposals and random negatives, at most ``share`` in addition to objects."""
    truth, windows, targets = mining.truths[i], mining.source.windows[i], mining.targets(i)
    draw, target = mining.draw, mining.target
    objects = torch.arange(len(truth))
    positive = objects[:0]
    if target.positives == "windows":
        each = target.positives_per_object
        positive = choose_on_objects(windows, truth, target.positive_iou, each, draw)[0]
    positive = positive[torch.randperm(len(positive), generator=draw)][: share // 2]
    negative = (targets < 0).all(1).nonzero()[:, 0]
    order = torch.randperm(len(negative), generator=draw)
    near = negative[order][: min(mining.options.random_negatives, share // 2)]
    chosen = torch.unique(torch.cat([objects, positive, near]))
    targets = targets[chosen]
    groups = torch.where((targets > 0).any(1), targets.argmax(1), targets.shape[1])
    # The box of an object has priority over proposals on it.
    return Sample(chosen, groups, (chosen >= len(truth)).float())


def _hard(mining: _Mining, i: int, model: LinearModel, used: set[int], number: int) -> Sample:
    """Select negatives of image i that score above ``add_above`` for some class and are not used yet.

    Neighbouring dense windows overlap, so that round ``number`` scores every ``mining_step``-th one.
    """
    options = mining.options
    scored = torch.arange(number % options.mining_step, len(mining.source.windows[i]), options.mining_step)
    windows, targets = mining.source.windows[i][scored], mining.targets(i, scored)
    scores = mining.source.scores(i, model, scored)
    chosen: set[int] = set()
    for number in range(scores.shape[1]):
        wrong = ((targets[:, number] < 0) & (scores[:, number] > options.add_above)).nonzero()[:, 0]
        if len(wrong):
            best = scores[wrong, number]
            apart = nms(windows.xyxy[wrong], best, options.alike, options.hard_per_class)
            chosen.update(wrong[apart].tolist())
    fresh = [j for j in sorted(chosen) if int(scored[j]) not in used]
    index = torch.tensor(fresh, dtype=torch.int64)
    worst, groups = scores[index].masked_fill(targets[index] >= 0, -torch.inf).max(1)
    return Sample(scored[index], groups, -worst)


def _fit(table: SampleTable, options: SvmOptions, start: LinearModel | None) -> LinearModel:
    """Fit SVMs to scaled features; return them for unscaled features."""
    fitted = fit_linear_svm(
        table.rows, table.targets, solver_options(options), None if start is None else _scaled(start, table)
    )
    return LinearModel(fitted.weight * table.scale, fitted.bias)


def solver_options(options: SvmOptions) -> SolverOptions:
    """Convert the options for the solver."""
    return SolverOptions(
        C=options.C,
        loss=options.loss,
        bias_feature=options.bias_feature,
        positive_weight=options.positive_weight,
        tolerance=options.tolerance,
    )


def _scaled(model: LinearModel, table: SampleTable) -> LinearModel:
    """Convert SVMs to the scale of the features in the table."""
    return LinearModel(model.weight / table.scale, model.bias)

"""SVMs on pooled windows, with hard negatives (paper section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.detect.options import DetectorOptions
from sppnet.detect.rows import RowTable, Sample, first_samples_within, hard_samples_within, make_room
from sppnet.detect.samples import choose_positives, svm_targets
from sppnet.features import pool_rows, score_rows
from sppnet.features.store import MapStore
from sppnet.learn import LinearModel, SvmOptions, fit_linear_svm
from sppnet.ops.boxes import nms
from sppnet.progress import track
from sppnet.structures import Boxes, GroundTruth

MEAN_NORM = 20.0
_POSITIVES_PER_OBJECT = 4
_RANDOM_NEGATIVES = 40
_HARD_PER_CLASS = 15
# Of negatives that overlap more than this, one is enough (paper section 3.4).
_ALIKE = 0.7
_MARGIN = -1.0
_ENOUGH_NEWS = 0.002
# The rows are a sample: weights that are right to a few hundredths detect as well as exact ones, sooner.
_TOLERANCE = 0.03


@dataclass(frozen=True)
class Scene:
    """What one training image offers: windows, truth, and what each window is for each class."""

    windows: Boxes
    truth: GroundTruth
    targets: Tensor


def make_scene(windows: Boxes, truth: GroundTruth) -> Scene:
    """An image's windows with the truth's own boxes before them, so that every object has a perfect one."""
    joined = Boxes(torch.cat([truth.boxes.clip().xyxy, windows.xyxy]), windows.size)
    return Scene(joined, truth, svm_targets(joined, truth))


def fit_svms(
    store: MapStore,
    scenes: Sequence[Scene],
    options: DetectorOptions,
    draw: torch.Generator,
    *,
    seconds: Callable[[str], None],
    quiet: bool,
) -> tuple[LinearModel, dict[str, int]]:
    """Fit one SVM per class, find its hard negatives, fit again.

    Args:
        store: the images' maps.
        scenes: one per image.
        options: C, positive_weight, mining_rounds, rows and levels count here.
        draw: of everything random.
        seconds: called with ``"mining"`` or ``"svm"`` whenever such a stage ends.
        quiet: no progress bars.

    Returns:
        The SVMs, for unscaled rows, and counts: ``"rows"``, ``"rows_left_out"`` (of the first sample),
        ``"negatives_left_out"`` (hard negatives without room, all rounds), ``"mining_rounds"``.
    """
    table = RowTable(len(scenes), options.rows)
    left_out = _add_first_rows(table, store, scenes, options, draw, quiet=quiet)
    table.rescale(MEAN_NORM)
    seconds("mining")
    model = _fit(table, options, None)
    seconds("svm")
    rounds = hard_left_out = 0
    for _ in range(options.mining_rounds):
        added, missed = _add_hard_rows(table, store, scenes, model, options, draw, quiet=quiet)
        hard_left_out += missed
        seconds("mining")
        if added <= _ENOUGH_NEWS * len(table):
            break
        model = _fit(table, options, model)
        rounds += 1
        seconds("svm")
    counts = {"rows": len(table), "rows_left_out": left_out, "negatives_left_out": hard_left_out}
    return model, {**counts, "mining_rounds": rounds}


def _add_first_rows(
    table: RowTable,
    store: MapStore,
    scenes: Sequence[Scene],
    options: DetectorOptions,
    draw: torch.Generator,
    *,
    quiet: bool,
) -> int:
    """Add the rows of the first sample; returns how many did not fit."""
    # An even share for every image, so that a large set fits into the same memory.
    share = max(8, options.rows // (2 * len(scenes)))
    samples = [_first_sample(scene, share, draw) for scene in scenes]
    chosen = first_samples_within(samples, scenes[0].targets.shape[1], options.rows, draw)
    for i, which in enumerate(track(chosen, "Sampling windows", quiet=quiet)):
        if len(which):
            rows = pool_rows(store[i], scenes[i].windows[which], options.levels)
            table.add(i, rows, scenes[i].targets[which], which)
    return sum(len(sample.windows) for sample in samples) - len(table)


def _add_hard_rows(
    table: RowTable,
    store: MapStore,
    scenes: Sequence[Scene],
    model: LinearModel,
    options: DetectorOptions,
    draw: torch.Generator,
    *,
    quiet: bool,
) -> tuple[int, int]:
    """Add the hard negatives of one round; returns how many were added, and how many did not fit."""
    samples: list[Sample] = []
    for i, scene in enumerate(track(scenes, "Mining negatives", quiet=quiet)):
        scores = score_rows(store[i], scene.windows, model.weight, model.bias, options.levels)
        samples.append(_hard(scene, scores.cpu(), table.used[i]))
    found = sum(len(sample.windows) for sample in samples)
    if found > table.free:
        make_room(table, _scaled(model, table).scores(table.rows), found, _MARGIN, draw)
    added = 0
    for i, which in enumerate(hard_samples_within(samples, table.free, draw)):
        if len(which):
            rows = pool_rows(store[i], scenes[i].windows[which], options.levels)
            table.add(i, rows, scenes[i].targets[which], which)
            added += len(which)
    return added, found - added


def _first_sample(scene: Scene, share: int, draw: torch.Generator) -> Sample:
    """Objects, well-placed windows and random negatives; at most ``share`` beyond the objects."""
    objects = torch.arange(len(scene.truth))
    positive = choose_positives(scene.windows, scene.truth, _POSITIVES_PER_OBJECT, draw)
    positive = positive[torch.randperm(len(positive), generator=draw)][: share // 2]
    negative = (scene.targets < 0).all(1).nonzero()[:, 0]
    order = torch.randperm(len(negative), generator=draw)
    near = negative[order][: min(_RANDOM_NEGATIVES, share // 2)]
    windows = torch.unique(torch.cat([objects, positive, near]))
    targets = scene.targets[windows]
    groups = torch.where((targets > 0).any(1), targets.argmax(1), targets.shape[1])
    # An object's own box comes before windows on it.
    return Sample(windows, groups, (windows >= len(scene.truth)).float())


def _hard(scene: Scene, scores: Tensor, used: set[int]) -> Sample:
    """Negatives that score above -1 for some class, none twice."""
    chosen: set[int] = set()
    for number in range(scores.shape[1]):
        wrong = ((scene.targets[:, number] < 0) & (scores[:, number] > _MARGIN)).nonzero()[:, 0]
        if len(wrong):
            apart = nms(scene.windows.xyxy[wrong], scores[wrong, number], _ALIKE, _HARD_PER_CLASS)
            chosen.update(wrong[apart].tolist())
    windows = torch.tensor(sorted(chosen - used), dtype=torch.int64)
    worst, groups = scores[windows].masked_fill(scene.targets[windows] >= 0, -torch.inf).max(1)
    return Sample(windows, groups, -worst)


def _fit(table: RowTable, options: DetectorOptions, start: LinearModel | None) -> LinearModel:
    """SVMs on scaled rows, returned for unscaled ones."""
    wanted = SvmOptions(
        C=options.C, bias_feature=10.0, positive_weight=options.positive_weight, tolerance=_TOLERANCE
    )
    fitted = fit_linear_svm(
        table.rows, table.targets, wanted, None if start is None else _scaled(start, table)
    )
    return LinearModel(fitted.weight * table.scale, fitted.bias)


def _scaled(model: LinearModel, table: RowTable) -> LinearModel:
    """SVMs for the scaled rows of the table."""
    return LinearModel(model.weight / table.scale, model.bias)

"""SVMs on pooled windows, with hard negatives (paper section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.detect.options import DetectorOptions
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


class _Table:
    """The training rows so far, in memory laid out once for the most that there may be.

    Args:
        images: how many.
        limit: rows at most.
    """

    def __init__(self, images: int, limit: int) -> None:
        self.used: list[set[int]] = [set() for _ in range(images)]
        self.scale = 1.0
        self._limit, self._count = limit, 0
        self._rows = torch.empty(0, 0)
        self._targets = torch.empty(0, 0, dtype=torch.int8)

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Tensor:
        return self._rows[: self._count]

    @property
    def targets(self) -> Tensor:
        return self._targets[: self._count]

    def add(self, image: int, rows: Tensor, targets: Tensor, windows: Tensor) -> None:
        """Add what there is room for."""
        if not len(self._rows):
            # Pages that are never written to take no memory.
            self._rows = torch.empty(self._limit, rows.shape[1])
            self._targets = torch.empty(self._limit, targets.shape[1], dtype=torch.int8)
        room = slice(self._count, min(self._limit, self._count + len(rows)))
        count = room.stop - room.start
        torch.mul(rows[:count], self.scale, out=self._rows[room])
        self._targets[room] = targets[:count]
        self._count += count
        self.used[image].update(windows[:count].tolist())

    def rescale(self, norm: float) -> None:
        """Make ``norm`` the mean norm of the rows, and scale those to come alike."""
        self.scale = norm / float(self.rows.norm(dim=1).mean().clamp(min=1e-12))
        self.rows.mul_(self.scale)


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
    """Fit one SVM a class, look for windows that it wrongly likes, fit again.

    Args:
        store: the images' maps.
        scenes: one an image.
        options: C, positive_weight, mining_rounds, rows and levels count here.
        draw: of everything random.
        seconds: told ``"mining"`` or ``"svm"`` whenever such a stage ends.
        quiet: no progress bars.

    Returns:
        The SVMs, for unscaled rows, and counts: ``"rows"``, ``"mining_rounds"``.
    """
    table = _Table(len(scenes), options.rows)
    # An even share for every image, so that a large set fits into the same memory.
    share = max(8, options.rows // (2 * len(scenes)))
    for i, scene in enumerate(track(scenes, "Sampling windows", quiet=quiet)):
        chosen = _first_sample(scene, share, draw)
        rows = pool_rows(store[i], scene.windows[chosen], options.levels)
        table.add(i, rows, scene.targets[chosen], chosen)
    table.rescale(MEAN_NORM)
    seconds("mining")
    model = _fit(table, options, None)
    seconds("svm")
    rounds = 0
    for _ in range(options.mining_rounds):
        added = 0
        for i, scene in enumerate(track(scenes, "Mining negatives", quiet=quiet)):
            scores = score_rows(store[i], scene.windows, model.weight, model.bias, options.levels)
            chosen = _hard(scene, scores, table.used[i])
            if len(chosen):
                rows = pool_rows(store[i], scene.windows[chosen], options.levels)
                table.add(i, rows, scene.targets[chosen], chosen)
                added += len(chosen)
        seconds("mining")
        if added <= _ENOUGH_NEWS * len(table):
            break
        model = _fit(table, options, model)
        rounds += 1
        seconds("svm")
    return model, {"rows": len(table), "mining_rounds": rounds}


def _first_sample(scene: Scene, share: int, draw: torch.Generator) -> Tensor:
    """Objects, well-placed windows and random negatives; at most ``share`` beyond the objects."""
    objects = torch.arange(len(scene.truth))
    positive = choose_positives(scene.windows, scene.truth, _POSITIVES_PER_OBJECT, draw)
    positive = positive[torch.randperm(len(positive), generator=draw)][: share // 2]
    negative = (scene.targets < 0).all(1).nonzero()[:, 0]
    order = torch.randperm(len(negative), generator=draw)
    near = negative[order][: min(_RANDOM_NEGATIVES, share // 2)]
    return torch.unique(torch.cat([objects, positive, near]))


def _hard(scene: Scene, scores: Tensor, used: set[int]) -> Tensor:
    """Negatives that score above -1 for some class, the worst first, none twice."""
    chosen: set[int] = set()
    for number in range(scores.shape[1]):
        wrong = ((scene.targets[:, number] < 0) & (scores[:, number] > _MARGIN)).nonzero()[:, 0]
        if len(wrong):
            apart = nms(scene.windows.xyxy[wrong], scores[wrong, number], _ALIKE, _HARD_PER_CLASS)
            chosen.update(wrong[apart].tolist())
    return torch.tensor(sorted(chosen - used), dtype=torch.int64)


def _fit(table: _Table, options: DetectorOptions, start: LinearModel | None) -> LinearModel:
    """SVMs on scaled rows, handed back for unscaled ones."""
    wanted = SvmOptions(
        C=options.C, bias_feature=10.0, positive_weight=options.positive_weight, tolerance=_TOLERANCE
    )
    if start is not None:
        start = LinearModel(start.weight / table.scale, start.bias)
    fitted = fit_linear_svm(table.rows, table.targets, wanted, start)
    return LinearModel(fitted.weight * table.scale, fitted.bias)

"""Single-size and multi-size training of the builtin network with equal budgets.

    python -m sppnet.benchmark.multi_size --data DIR --teacher FILE --out FOLDER

Both kinds of runs use the same images, pixels, steps and initial weights. Only the sizes of the crops differ
(He et al. 2015, section 2.3): 128x128, or sides from 96 to 256. Every fifth image of each class is held out
of training and used for the evaluation, at several sizes (section 3.1.3). An interrupted benchmark continues
when the command is repeated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sppnet.backbones import Backbone, load_backbone, prepare
from sppnet.backbones.builtin import BuiltinNet
from sppnet.data import read_image
from sppnet.errors import UserError
from sppnet.evaluate import classification_metrics
from sppnet.features import extract, image_rows
from sppnet.files import write_text
from sppnet.learn import fit_linear_svm, one_versus_rest
from sppnet.learn.svm import SvmOptions
from sppnet.progress import track
from sppnet.recipes.crops import class_name, list_images
from sppnet.recipes.pretrain_builtin import pretrain
from sppnet.recipes.pretraining import CHECKPOINT, ClassHead, Recipe, beside

Kind = Literal["single-size", "multi-size"]
KINDS: tuple[Kind, ...] = ("single-size", "multi-size")
SHORT_SIDES: tuple[int | None, ...] = (96, 128, 192, 256, None)
"""Short sides of the evaluation; None is the size of the image."""
_EVERY = 5


@dataclass(frozen=True)
class Ablation:
    """Options of the comparison.

    Attributes:
        data: a folder of class folders, as for `sppnet.recipes.pretraining.Recipe`.
        out: folder of the runs and of ``multi_size.json``.
        teacher: file of EfficientNet-Lite2; None to train on labels only.
        labels: weight of the classification loss; 0 for none, which also removes the class head.
        steps: number of steps of each run.
        batch: number of crops of 128x128 per step.
        seeds: number of runs of each kind.
        device: device of the training.
    """

    data: Path
    out: Path
    teacher: Path | None = None
    labels: float = 0.0
    steps: int = 1000
    batch: int = 16
    seeds: int = 2
    device: str = "auto"


@dataclass(frozen=True)
class Labelled:
    """Images with class numbers and class names."""

    paths: tuple[Path, ...]
    labels: Tensor
    names: tuple[str, ...]


def divide(data: Path) -> tuple[Labelled, Labelled]:
    """Divide the labelled images of a folder into training images and every fifth image of each class.

    Raises:
        UserError: there are fewer than two classes, or a class has fewer than five images.
    """
    found: dict[str, list[Path]] = {}
    for path in list_images(data):
        name = class_name(path, data)
        if name is not None:
            found.setdefault(name, []).append(path)
    if len(found) < 2 or min(map(len, found.values())) < _EVERY:
        got = f"{len(found)} classes with at least {min(map(len, found.values()), default=0)} images"
        raise UserError(data, "at least two class folders with at least five images each", got)
    names = tuple(sorted(found))
    splits: list[Labelled] = []
    for held in (False, True):
        pairs = [
            (path, label)
            for label, name in enumerate(names)
            for i, path in enumerate(found[name])
            if (i % _EVERY == _EVERY - 1) == held
        ]
        splits.append(Labelled(tuple(p for p, _ in pairs), torch.tensor([k for _, k in pairs]), names))
    return splits[0], splits[1]


def recipe_of(ablation: Ablation, kind: Kind, seed: int, held: Labelled) -> Recipe:
    """Create the recipe of one run, which resumes from its checkpoint, if any."""
    out = ablation.out / f"{kind}-{seed}.safetensors"
    return Recipe(
        data=ablation.data, out=out, teacher=ablation.teacher, labels=ablation.labels,
        exclude=tuple(str(path.relative_to(ablation.data)) for path in held.paths),
        steps=ablation.steps, batch=ablation.batch, single_size=kind == "single-size",
        resume=beside(out, CHECKPOINT).is_file(), seed=seed, device=ablation.device,
    )  # fmt: skip


def evaluate_head(
    net: BuiltinNet, head: ClassHead, held: Labelled, sides: Sequence[int | None] = SHORT_SIDES
) -> dict[str, float]:
    """Compute the mean class accuracy of a network with its class head, by short side."""
    backbone = load_backbone("builtin")
    backbone.trunk.load_state_dict({f"net.{n}": t for n, t in net.fold().cpu().state_dict().items()})
    network, head = prepare(backbone), head.cpu().eval()
    accuracies: dict[str, float] = {}
    for side in sides:
        scores: list[Tensor] = []
        with torch.inference_mode():
            for path in held.paths:
                maps = extract(network, read_image(path), None if side is None else (side,))
                values = [maps.of_layer(layer)[0].values[None].float() for layer in maps.layers]
                scores.append(head(values)[0])
        accuracies[_key(side)] = _accuracy(torch.stack(scores), held)
    return accuracies


def evaluate_features(
    weights: Path, train: Labelled, held: Labelled, sides: Sequence[int | None] = SHORT_SIDES
) -> dict[str, float]:
    """Compute the mean class accuracy of linear SVMs on frozen features, by short side.

    The SVMs are fitted at the images' own size. Features are pyramids of 6x6 to 1x1 bins, of norm 1.
    """
    network = prepare(load_backbone("builtin", weights))
    targets = one_versus_rest(train.labels, len(train.names))
    model = fit_linear_svm(_features(network, train, None), targets, SvmOptions(C=10.0))
    return {_key(side): _accuracy(model.scores(_features(network, held, side)), held) for side in sides}


def _features(network: Backbone, images: Labelled, side: int | None) -> Tensor:
    scales = None if side is None else (side,)
    paths = track(images.paths, "Features")
    vectors = [image_rows(extract(network, read_image(path), scales)) for path in paths]
    return torch.nn.functional.normalize(torch.cat([one.reshape(1, -1) for one in vectors]), dim=1)


def _key(side: int | None) -> str:
    return "own" if side is None else str(side)


def _accuracy(scores: Tensor, held: Labelled) -> float:
    return float(classification_metrics(scores, held.labels, held.names)["mean_class_accuracy"])


def ablate(ablation: Ablation) -> list[dict[str, object]]:
    """Train and evaluate every run, and write the results to ``multi_size.json``.

    Args:
        ablation: the options.

    Returns:
        One mapping per run: "kind", "seed", "seconds" and the mean class accuracies by short side,
        "features" and, with labels, "head".

    Raises:
        UserError: the data or the teacher are invalid.
    """
    train, held = divide(ablation.data)
    ablation.out.mkdir(parents=True, exist_ok=True)
    document = ablation.out / "multi_size.json"
    rows: list[dict[str, object]] = []
    for seed in range(ablation.seeds):
        for kind in KINDS:
            recipe = recipe_of(ablation, kind, seed, held)
            done = recipe.out.with_suffix(".json")
            if not done.is_file():
                run = pretrain(recipe)
                row: dict[str, object] = {"kind": kind, "seed": seed, "seconds": round(run.seconds)}
                if run.head is not None:
                    row["head"] = evaluate_head(run.average, run.head, held)
                row["features"] = evaluate_features(recipe.out, train, held)
                _write(done, row)
            rows.append(json.loads(done.read_text()))
            _write(document, rows)
    return rows


def _write(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Read the flags, run the comparison and print the results as JSON."""
    import tyro

    try:
        print(json.dumps(ablate(tyro.cli(Ablation, description=__doc__)), indent=1))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

"""Training at one size against training at several, of the builtin network, on the same budget.

    python -m sppnet.benchmark.multi_size --data DIR --teacher FILE --out FOLDER

Both kinds of run see the same images, as many pixels and as many steps, from the same random start; only
the sizes of the crops differ (paper section 2.3): 128x128 always, or sides from 96 to 192. Every fifth
image of each class is held out of the training and judged, at several sizes (paper section 3.1.2).
Killed, the same command goes on where it stopped.
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
"""Sizes at which images are judged; None is their own."""
_EVERY = 5


@dataclass(frozen=True)
class Ablation:
    """What is compared.

    Attributes:
        data: a folder of class folders, as `sppnet.recipes.pretraining.Recipe` takes it.
        out: a folder for the runs and for ``multi_size.json``.
        teacher: SqueezeNet 1.0's tensors; None trains with labels alone.
        labels: weight of the class loss beside the teacher's; 0 leaves it out, and with it the network's
            own head.
        steps: of each run.
        batch: crops of 128x128 a step.
        seeds: runs of either kind.
        device: where to train.
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
    """Images with their class numbers."""

    paths: tuple[Path, ...]
    labels: Tensor
    names: tuple[str, ...]


def divide(data: Path) -> tuple[Labelled, Labelled]:
    """The labelled images of a folder: those to train on, and every fifth of each class.

    Raises:
        UserError: fewer than two classes, or one of fewer than five images.
    """
    found: dict[str, list[Path]] = {}
    for path in list_images(data):
        name = class_name(path, data)
        if name is not None:
            found.setdefault(name, []).append(path)
    if len(found) < 2 or min(map(len, found.values())) < _EVERY:
        raise UserError(data, "two or more class folders of five or more images", f"{len(found)} classes")
    names = tuple(sorted(found))
    parts: list[Labelled] = []
    for held in (False, True):
        picked = [
            (path, label)
            for label, name in enumerate(names)
            for i, path in enumerate(found[name])
            if (i % _EVERY == _EVERY - 1) == held
        ]
        parts.append(Labelled(tuple(p for p, _ in picked), torch.tensor([k for _, k in picked]), names))
    return parts[0], parts[1]


def recipe_of(ablation: Ablation, kind: Kind, seed: int, held: Labelled) -> Recipe:
    """The recipe of one run; its checkpoint is taken up where there is one."""
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
    """Mean class accuracy of a trained network with its own head, by the images' short side."""
    backbone = load_backbone("builtin")
    backbone.trunk.load_state_dict({f"net.{n}": t for n, t in net.fold().cpu().state_dict().items()})
    network, head = prepare(backbone), head.cpu().eval()
    found: dict[str, float] = {}
    for side in sides:
        scores: list[Tensor] = []
        with torch.inference_mode():
            for path in held.paths:
                maps = extract(network, read_image(path), None if side is None else (side,))
                fine, coarse = (maps.of_layer(layer)[0].values[None].float() for layer in maps.layers)
                scores.append(head(fine, coarse)[0])
        found[_by(side)] = _accuracy(torch.stack(scores), held)
    return found


def evaluate_features(
    weights: Path, train: Labelled, held: Labelled, sides: Sequence[int | None] = SHORT_SIDES
) -> dict[str, float]:
    """Mean class accuracy of linear SVMs on the frozen features, fitted at the images' own size.

    Rows are pyramids of 6x6 to 1x1 bins over the whole image, of norm 1.
    """
    network = prepare(load_backbone("builtin", weights))
    targets = one_versus_rest(train.labels, len(train.names))
    model = fit_linear_svm(_rows(network, train, None), targets, SvmOptions(C=10.0))
    return {_by(side): _accuracy(model.scores(_rows(network, held, side)), held) for side in sides}


def _rows(network: Backbone, images: Labelled, side: int | None) -> Tensor:
    scales = None if side is None else (side,)
    rows = [image_rows(extract(network, read_image(path), scales)) for path in track(images.paths, "rows")]
    return torch.nn.functional.normalize(torch.cat([row.reshape(1, -1) for row in rows]), dim=1)


def _by(side: int | None) -> str:
    return "own" if side is None else str(side)


def _accuracy(scores: Tensor, held: Labelled) -> float:
    return float(classification_metrics(scores, held.labels, held.names)["mean_class_accuracy"])


def ablate(ablation: Ablation) -> list[dict[str, object]]:
    """Train and judge every run.

    Returns:
        A row a run: "kind", "seed", "seconds" and, by the short side that images are resized to,
        "features" and, with labels, "head": mean class accuracies. They are in ``multi_size.json``, too.

    Raises:
        UserError: data or teacher at fault.
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
    """Read the flags, compare, and print the rows as JSON."""
    import tyro

    try:
        print(json.dumps(ablate(tyro.cli(Ablation, description=__doc__)), indent=1))
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

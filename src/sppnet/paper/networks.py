"""The networks of Tables 2 to 4: one of the paper's in several forms, trained where missing, and tested."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sppnet.classify import NetworkClassifier, NetworkOptions, TrainOptions, ViewOptions
from sppnet.classify.views import view_probabilities
from sppnet.data import classification_for, default_split, read_classification, read_image
from sppnet.evaluate import classification_metrics
from sppnet.files import make_folder, write_text
from sppnet.paper.tables import Request
from sppnet.progress import track
from sppnet.runs import json_text

FORMS = ("no SPP", "SPP single-size", "SPP multi-size", "SPP single-size, 30 bins", "SPP random size")
"""The rows of Table 2, and the two variants in the text of section 3.1.2 and 3.1.3."""
_NO_SPP, _SINGLE, _MULTI, _THIRTY, _RANDOM = FORMS
_THIRTY_BINS = (4, 3, 2, 1)


@dataclass(frozen=True)
class Plan:
    """How the networks of a table are trained.

    Attributes:
        train: the recipe at one size.
        network: the fully connected layers.
        second: the other size of the crop, for several sizes.
        seeds: runs of each form.
        said: what differs from the paper, for the table.
    """

    train: TrainOptions
    network: NetworkOptions
    second: int
    seeds: int
    said: tuple[str, ...] = field(default=())


def plan_of(request: Request) -> Plan:
    """The paper's recipe, or for ``zf5-small`` one that two processor cores finish.

    The small recipe keeps the paper's proportions: a short side of 73 for 256, crops of 64 for 224, 51 for
    180, so that the last maps have the paper's 13 and 10 cells a side.
    """
    if request.backbone.startswith("zf5-small"):
        train = TrainOptions(short_side=73, crop=64, epochs=24, batch=16, drops=(16, 21))
        network = NetworkOptions(hidden=(512, 512), dropout=0.0, start="he")
        said = (
            f"{request.backbone}: stride 4, fewer channels, fully connected layers of 512, no dropout",
            "short side 73 for 256, crops of 64 and 51 for 224 and 180",
            "He's random start; 24 epochs of batches of 16; the rate falls after 16 and 21 of them",
        )
        plan = Plan(train, network, 51, 3, said)
    else:
        train = TrainOptions(epochs=70 if request.backbone.startswith("zf5") else 90)
        plan = Plan(train, NetworkOptions(), 180, 1, ("one network of each form",))
    if request.quick:
        said = (*plan.said, "quick: one run of each form, two epochs")
        plan = replace(plan, train=replace(plan.train, epochs=2, drops=()), seeds=1, said=said)
    return plan


def trained(request: Request, plan: Plan, form: str, seed: int) -> NetworkClassifier:
    """One of the networks; a finished run in ``request.out`` is taken, one that was stopped goes on.

    Args:
        request: data, network and place.
        plan: the recipe.
        form: one of `FORMS`.
        seed: added to the request's.
    """
    run = _folder(request, form, seed)
    if (run / "done.json").is_file():
        return NetworkClassifier.load(run, request.device)
    network = plan.network
    if form in (_NO_SPP, _THIRTY):
        network = replace(network, pyramid=() if form == _NO_SPP else _THIRTY_BINS)
    sizes = (plan.train.crop, plan.second) if form in (_MULTI, _RANDOM) else ()
    classifier = NetworkClassifier(
        backbone=request.backbone,
        weights=request.weights,
        device=request.device,
        seed=request.seed + seed,
        network=network,
        train=replace(plan.train, sizes=sizes, random_size=form == _RANDOM),
    )
    resume = (run / "checkpoint.safetensors").is_file()
    classifier.fit(request.data, folder=run, resume=resume, overwrite=not resume, quiet=request.quiet)
    write_text(run / "done.json", json_text(classifier.summary_))
    return classifier


def _folder(request: Request, form: str, seed: int) -> Path:
    name = (
        f"{request.backbone}-{form}-{request.seed + seed}".replace("/", "-")
        .replace(", ", "-")
        .replace(" ", "-")
    )
    folder = request.out / "networks" / (f"quick-{name}" if request.quick else name)
    make_folder(folder.parent)
    return folder


def errors(
    classifier: NetworkClassifier, request: Request, views: Mapping[str, ViewOptions]
) -> dict[str, tuple[float, float]]:
    """Top-1 and top-5 errors in percent on the part for evaluation, by the name of the views.

    Each image is read once for all views.
    """
    part = default_split(request.data, "evaluate")
    dataset = classification_for(read_classification(request.data, part), classifier.names_)
    items = dataset.items[:: 10 if request.quick else 1]
    found: dict[str, list[torch.Tensor]] = {name: [] for name in views}
    for item in track(items, "Testing", quiet=request.quiet):
        image = read_image(item.path)
        for name, options in views.items():
            found[name].append(view_probabilities(classifier.network_, image, options))
    labels = torch.tensor([item.label for item in items])
    told: dict[str, tuple[float, float]] = {}
    for name, scores in found.items():
        metrics = classification_metrics(torch.stack(scores), labels, classifier.names_)
        told[name] = (100 * (1 - metrics["accuracy"]), 100 * (1 - metrics["top5"]))
    return told


def kept_errors(
    request: Request, plan: Plan, form: str, seed: int, views: Mapping[str, ViewOptions]
) -> dict[str, tuple[float, float]]:
    """`errors` of a network of the plan; what was measured before is read from its run."""
    path = _folder(request, form, seed) / "errors.json"
    known: dict[str, list[float]] = json.loads(path.read_text()) if path.is_file() else {}
    missing = {name: options for name, options in views.items() if name not in known}
    if missing:
        measured = errors(trained(request, plan, form, seed), request, missing)
        known |= {name: list(pair) for name, pair in measured.items()}
        write_text(path, json_text(known))
    return {name: (known[name][0], known[name][1]) for name in views}

"""The networks of Tables 2 to 4: training and evaluation of several forms of one network."""

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
"""The rows of Table 2 and the two variants of sections 3.1.2 and 3.1.3 (He et al. 2015)."""
_NO_SPP, _SINGLE, _MULTI, _THIRTY, _RANDOM = FORMS
_THIRTY_BINS = (4, 3, 2, 1)


@dataclass(frozen=True)
class Plan:
    """Training options of the networks of a table.

    Attributes:
        train: options of single-size training.
        network: the fully connected layers.
        second: the second crop size of multi-size training.
        seeds: number of runs of each form.
        differs: differences from the paper, for the table.
    """

    train: TrainOptions
    network: NetworkOptions
    second: int
    seeds: int
    differs: tuple[str, ...] = field(default=())


def plan_of(request: Request) -> Plan:
    """Create the training options of the paper or, for ``zf5-small``, options for two processor cores.

    The small sizes have the proportions of the paper: a short side of 73 for 256, crops of 64 and 51 for 224
    and 180. The last maps have 13 and 10 cells per side as in the paper.
    """
    if request.backbone.startswith("zf5-small"):
        train = TrainOptions(short_side=73, crop=64, epochs=24, batch=16, drops=(16, 21))
        network = NetworkOptions(hidden=(512, 512), dropout=0.0, start="he")
        differs = (
            f"{request.backbone}: stride 4, fewer channels, fully connected layers of 512, no dropout",
            "short side 73 for 256, crops of 64 and 51 for 224 and 180",
            "He initialisation; 24 epochs, batches of 16; learning rate reduced after 16 and 21 epochs",
        )
        plan = Plan(train, network, 51, 3, differs)
    else:
        train = TrainOptions(epochs=70 if request.backbone.startswith("zf5") else 90)
        plan = Plan(train, NetworkOptions(), 180, 1, ("one network of each form",))
    if request.quick:
        differs = (*plan.differs, "quick: one run of each form, two epochs")
        plan = replace(plan, train=replace(plan.train, epochs=2, drops=()), seeds=1, differs=differs)
    return plan


def trained(request: Request, plan: Plan, form: str, seed: int) -> NetworkClassifier:
    """Train a network, load its finished run from ``request.out`` or resume an interrupted run.

    Args:
        request: data, network and output folder.
        plan: the training options.
        form: one of `FORMS`.
        seed: number added to the seed of the request.

    Returns:
        The network.
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
    """Measure top-1 and top-5 errors in percent on the evaluation split, by name of the views."""
    split = default_split(request.data, "evaluate")
    dataset = classification_for(read_classification(request.data, split), classifier.names_)
    items = dataset.items[:: 10 if request.quick else 1]
    probabilities: dict[str, list[torch.Tensor]] = {name: [] for name in views}
    for item in track(items, "Testing", quiet=request.quiet):
        image = read_image(item.path)
        for name, options in views.items():
            probabilities[name].append(view_probabilities(classifier.network_, image, options))
    labels = torch.tensor([item.label for item in items])
    result: dict[str, tuple[float, float]] = {}
    for name, scores in probabilities.items():
        metrics = classification_metrics(torch.stack(scores), labels, classifier.names_)
        result[name] = (100 * (1 - metrics["accuracy"]), 100 * (1 - metrics["top5"]))
    return result


def cached_errors(
    request: Request, plan: Plan, form: str, seed: int, views: Mapping[str, ViewOptions]
) -> dict[str, tuple[float, float]]:
    """Return the `errors` of a network; earlier measurements are read from its run folder."""
    path = _folder(request, form, seed) / "errors.json"
    known: dict[str, list[float]] = json.loads(path.read_text()) if path.is_file() else {}
    missing = {name: options for name, options in views.items() if name not in known}
    if missing:
        measured = errors(trained(request, plan, form, seed), request, missing)
        known |= {name: list(pair) for name, pair in measured.items()}
        write_text(path, json_text(known))
    return {name: (known[name][0], known[name][1]) for name in views}

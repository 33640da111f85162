"""The stages of training, each kept when it is finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.backbones.weights import weights_file
from sppnet.config import as_config
from sppnet.detect.paper.cells import CELLS_VERSION
from sppnet.detect.paper.fc import FullyConnected
from sppnet.detect.paper.finetune import finetune, start_head
from sppnet.detect.paper.images import Image
from sppnet.detect.paper.options import PaperOptions
from sppnet.detect.paper.regress import BoxModel, fit_boxes
from sppnet.detect.paper.source import CropSource, FcSource, MapSource, RowSource
from sppnet.detect.paper.stages import StageCache, key_of, tensors_key
from sppnet.detect.paper.svms import fit_paper_svms
from sppnet.detect.paper.windows import file_digest
from sppnet.learn import LinearModel
from sppnet.progress import Stopwatch, track
from sppnet.structures import Boxes, GroundTruth


@dataclass(frozen=True)
class PaperHeads:
    """What was learned above the network.

    Attributes:
        names: class names.
        svm: weight ``[K, D]``, bias ``[K]``, for unscaled rows.
        boxes: the regressors, or None.
        head: the fully connected layers, or None where the SVMs see pooled rows.
    """

    names: tuple[str, ...]
    svm: LinearModel
    boxes: BoxModel | None
    head: FullyConnected | None

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a run."""
        found = {"svm.weight": self.svm.weight, "svm.bias": self.svm.bias}
        if self.boxes is not None:
            found |= {"boxes.weight": self.boxes.model.weight, "boxes.bias": self.boxes.model.bias}
        if self.head is not None:
            found |= {f"fc.{name}": value for name, value in self.head.state_dict().items()}
        return found

    @staticmethod
    def of(names: tuple[str, ...], tensors: Mapping[str, Tensor]) -> PaperHeads:
        """From what `tensors` gave.

        Raises:
            KeyError: one is missing.
        """
        boxes = None
        if "boxes.weight" in tensors:
            boxes = BoxModel(LinearModel(tensors["boxes.weight"], tensors["boxes.bias"]))
        head = None
        if "fc.fc6.weight" in tensors:
            head = head_of({k.removeprefix("fc."): v for k, v in tensors.items() if k.startswith("fc.")})
        return PaperHeads(names, LinearModel(tensors["svm.weight"], tensors["svm.bias"]), boxes, head)


def head_of(state: Mapping[str, Tensor]) -> FullyConnected:
    """Fully connected layers from their weights."""
    width, length = state["fc6.weight"].shape
    widths = (width, len(state["fc7.bias"]))
    head = FullyConnected(length, widths, len(state["fc8.bias"]) - 1)
    head.load_state_dict(dict(state))
    return head.eval().requires_grad_(False)


def pooled_source(
    network: Backbone,
    network_key: str,
    images: Sequence[Image],
    windows: Sequence[Boxes],
    options: PaperOptions,
    cache: StageCache,
) -> MapSource | CropSource:
    """Pooled rows, by the pipeline that the options name."""
    kind = MapSource if options.pipeline == "spp" else CropSource
    return kind(network, network_key, images, windows, options, cache)


def row_keys(source: MapSource | CropSource) -> list[str]:
    """A digest of each image's pooled rows; ``""`` for images in memory."""
    options = source.options
    if options.pipeline == "spp":
        form: object = (
            options.scales, options.cells, CELLS_VERSION, options.release_offset, options.levels
        )  # fmt: skip
    else:
        form = (options.crops.side, options.crops.padding, options.levels)
    return [
        key_of(source.network_key, options.pipeline, form, p.key, tensors_key({"boxes": w.xyxy}))
        if p.key
        else ""
        for p, w in zip(source.images, source.windows, strict=True)
    ]


def learned_rows(source: MapSource | CropSource, head: FullyConnected | None, cache: StageCache) -> RowSource:
    """What the SVMs see: pooled rows, or the outputs of fc6 or fc7."""
    layer = source.options.features
    if head is None or layer == "pool":
        return source
    return FcSource(source, row_keys(source), head, tensors_key(head.state_dict()), layer, cache)


def truths_key(truths: Sequence[GroundTruth]) -> str:
    """A digest of all objects."""
    return key_of(
        [
            (t.names, tensors_key({"b": t.boxes.xyxy, "l": t.labels, "d": t.difficult, "c": t.crowd}))
            for t in truths
        ]
    )


def fit_paper_heads(
    source: MapSource | CropSource,
    truths: Sequence[GroundTruth],
    options: PaperOptions,
    seed: int,
    cache: StageCache,
    watch: Stopwatch,
    *,
    quiet: bool,
) -> tuple[PaperHeads, dict[str, object]]:
    """Maps or crops, fully connected layers, SVMs, regressors: in this order, each from the cache if there.

    Returns:
        The heads, and counts.
    """
    for i in track(range(len(source.images)), "Feature maps", quiet=quiet):
        if isinstance(source, CropSource):
            source.every(i)
        elif not cache.has("maps", source.key(i)):
            source.maps(i)
    watch("features")
    base = key_of("base", row_keys(source), truths_key(truths), seed)
    head: FullyConnected | None = None
    if options.features != "pool":
        head = _fitted_fc(source, truths, options, seed, base, cache, quiet=quiet)
        watch("finetuning")
    rows = learned_rows(source, head, cache)
    head_key = "" if head is None else tensors_key(head.state_dict())
    layer = options.features
    facts: dict[str, object] = {}

    def svms() -> dict[str, Tensor]:
        model, counts = fit_paper_svms(rows, truths, options.svm, seed, quiet=quiet)
        facts.update(counts)
        return {"weight": model.weight, "bias": model.bias}

    svm = cache.get("svms", key_of(base, head_key, layer, as_config(options.svm)), svms)
    watch("svm")
    boxes: BoxModel | None = None
    if options.boxes.regress:

        def regressors() -> dict[str, Tensor]:
            model, counts = fit_boxes(source, truths, options.boxes, seed)
            facts.update(counts)
            return {"weight": model.model.weight, "bias": model.model.bias}

        found = cache.get("boxes", key_of(base, as_config(options.boxes)), regressors)
        boxes = BoxModel(LinearModel(found["weight"], found["bias"]))
        watch("regression")
    return PaperHeads(truths[0].names, LinearModel(svm["weight"], svm["bias"]), boxes, head), facts


def notes_of(facts: Mapping[str, object], options: PaperOptions) -> list[str]:
    """What the SVMs and regressors did not learn from, a sentence each; nothing where all had room."""
    kinds = (
        ("negatives_left_out", "negatives", "svm.rows_mb", options.svm.rows_mb),
        ("regression_left_out", "windows of box regression", "boxes.rows_mb", options.boxes.rows_mb),
    )
    return [
        f"options.{name} is {limit}: {facts[key]} {what} left out"
        for key, what, name, limit in kinds
        if facts.get(key)
    ]


def _fitted_fc(
    source: MapSource | CropSource,
    truths: Sequence[GroundTruth],
    options: PaperOptions,
    seed: int,
    base: str,
    cache: StageCache,
    *,
    quiet: bool,
) -> FullyConnected:
    settings = as_config(dataclasses.replace(options.finetune, weights=None))
    weights = options.finetune.weights
    given = file_digest(None if weights is None else weights_file(weights))
    device = source.network.device
    if not options.finetuned:
        return (
            start_head(source, options.finetune, len(truths[0].names), seed).to(device).requires_grad_(False)
        )

    def train() -> dict[str, Tensor]:
        return dict(finetune(source, truths, options.finetune, seed, device, quiet=quiet).state_dict())

    state = cache.get("finetuned", key_of(base, settings, given), train)
    return head_of(state).to(device)


def move_head(heads: PaperHeads, device: torch.device) -> PaperHeads:
    """The heads with their fully connected layers on a device."""
    return heads if heads.head is None else dataclasses.replace(heads, head=heads.head.to(device))

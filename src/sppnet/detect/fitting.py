"""The stages of fitting a detector, in their order, with a cache of finished stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.backbones.weights import weights_file
from sppnet.config import as_config
from sppnet.detect.boxes import ProjectedRegressors, fit_projected
from sppnet.detect.fc_head import FullyConnected
from sppnet.detect.fc_source import FcSource
from sppnet.detect.finetune import finetune, start_head
from sppnet.detect.heads import Heads, fc_of
from sppnet.detect.images import Image, image_of
from sppnet.detect.iou_head import IouHeadTask, fit_iou_head
from sppnet.detect.options import DetectorOptions
from sppnet.detect.pooled_boxes import PooledRegressors, fit_pooled
from sppnet.detect.postprocess import refined
from sppnet.detect.sources import CropSource, MapSource, RowSource
from sppnet.detect.svm_images import fit_by_images
from sppnet.detect.svm_rounds import fit_in_rounds
from sppnet.detect.targets import class_overlaps
from sppnet.detect.windows import ImageWindows
from sppnet.features.keys import file_key, key_of, network_key, tensors_key
from sppnet.features.store import StageStore
from sppnet.learn import LinearModel, fit_sigmoid
from sppnet.progress import Stopwatch, track
from sppnet.proposals import ProposalSource
from sppnet.structures import Boxes, DetectionSet, GroundTruth

_MATCH_IOU = 0.5  # as AP50 counts a detection as right


def pooled_source(
    network: Backbone,
    images: Sequence[Image],
    windows: Sequence[Boxes],
    options: DetectorOptions,
    store: StageStore | None,
) -> MapSource | CropSource:
    """Return the source of pooled features of the pipeline in the options."""
    key = "" if store is None else network_key(network)
    if options.pool.pipeline == "rcnn":
        return CropSource(network, key, images, windows, options.pool, store)
    return MapSource(network, key, images, windows, options.map, options.pool, store)


def svm_source(
    pooled: MapSource | CropSource, fc: FullyConnected | None, options: DetectorOptions
) -> RowSource:
    """Return the features of the SVMs: pooled features, or outputs of fc6 or fc7."""
    layer = options.fc.features
    if fc is None or layer == "pool":
        return pooled
    key = "" if pooled.store is None else tensors_key(fc.state_dict())
    return FcSource(pooled, fc, key, layer, pooled.store)


@dataclass
class Fit:
    """The fit of a detector.

    Attributes:
        network: the prepared backbone.
        dataset: images with objects of the classes to learn.
        proposals: source of proposals.
        options: options of all stages.
        seed: seed of all random numbers.
        store: cache of stages.
        watch: called with the name of each stage when it ends.
        quiet: show no progress bars.
    """

    network: Backbone
    dataset: DetectionSet
    proposals: ProposalSource
    options: DetectorOptions
    seed: int
    store: StageStore
    watch: Stopwatch
    quiet: bool

    def __post_init__(self) -> None:
        items, options = self.dataset.items, self.options
        self.draw = torch.Generator().manual_seed(self.seed)
        self.objects = sum(len(item.truth) for item in items)
        self.flipped = self.objects < options.target.flip_below
        images = [image_of(item.path) for item in items]
        truths = [item.truth for item in items]
        if self.flipped:
            images = [two for one in images for two in (one, replace(one, flipped=True))]
            truths = [two for t in truths for two in (t, replace(t, boxes=t.boxes.flipped()))]
        self.images, self.truths = images, truths
        self.windows = ImageWindows(images, self.proposals, options.window, self.store, truths)
        self.pooled = pooled_source(self.network, images, self.windows, options, self.store)
        self.facts: dict[str, object] = {}

    def run(self) -> Heads:
        """Run all stages: proposals, maps or crops, fully connected layers, SVMs, boxes, calibration.

        Annotations and proposals are processed before the network runs, so that their errors come first.
        """
        images = track(range(len(self.images)), "Proposals", quiet=self.quiet)
        counts = [len(self.windows.proposed(i)) for i in images]
        step = 2 if self.flipped else 1
        self.watch("windows")
        for i in track(range(len(self.images)), "Feature maps", quiet=self.quiet):
            if isinstance(self.pooled, CropSource):
                self.pooled.every(i)
            else:
                self.pooled.maps(i)
        self.watch("features")
        fc = None if self.options.fc.features == "pool" else self._fc()
        rows = svm_source(self.pooled, fc, self.options)
        svm = self._svm(rows)
        boxes = self._boxes(rows, svm)
        names = self.dataset.names
        heads = Heads(names, svm, boxes, fc, torch.tensor([[1.0, 0.0]]).repeat(len(names), 1))
        if self.options.post.calibrated:
            heads = replace(heads, calibration=self._calibration(heads, rows))
            self.watch("calibration")
        self.facts = {
            "images": len(self.dataset),
            "flipped": self.flipped,
            "objects": self.objects,
            "windows": sum(counts[::step]),
            "row_bytes_a_window": 4 * self.pooled.length,
            **self.facts,
            **{f"{stage}_mb": round(self.store.stage_bytes(stage) / 2**20, 1) for stage in _STAGES},
            "stages_found": self.store.found,
            "stages_made": self.store.made,
        }
        return heads

    def notes(self) -> list[str]:
        """Return a sentence for each kind of sample that was left out because of a limit."""
        svm, box = self.options.svm, self.options.box
        facts = {name: value for name, value in self.facts.items() if isinstance(value, int)}
        found: list[str] = []
        first, hard = facts.get("rows_left_out", 0), facts.get("negatives_left_out", 0)
        if svm.mining == "rounds" and (first or hard):
            what = f"{first} windows of the first sample and {hard} hard negatives"
            found.append(
                f"rows is {svm.rows} (--rows): {what} left out, drawn evenly over classes and images"
            )
        elif hard:
            found.append(f"negatives_mb is {svm.negatives_mb} (--negatives-mb): {hard} negatives left out")
        if left := facts.get("regression_left_out", 0):
            found.append(f"boxes_mb is {box.boxes_mb} (--boxes-mb): {left} windows of regression left out")
        return found

    def _base_key(self) -> str:
        """Return a digest of the features and objects of all images."""
        rows = [self.pooled.row_key(i) for i in range(len(self.images))]
        return key_of("base", rows, truths_key(self.truths), self.seed)

    def _cached(
        self, stage: str, form: Sequence[object], make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the tensors of a stage that depends on all images, cached if the store has a folder."""
        if self.store.folder is None:
            return dict(make())
        return self.store.get(stage, key_of(self._base_key(), *form), make)

    def _fc(self) -> FullyConnected:
        options, classes = self.options, len(self.dataset.names)
        device = self.network.device
        weights = options.fc.fc_weights
        # Where the weights lie does not matter.
        form = (
            as_config(replace(options.fc, fc_weights=None)),
            "" if weights is None else file_key(weights_file(weights)),
            as_config(options.finetune),
        )

        def make() -> Mapping[str, Tensor]:
            head = start_head(self.pooled, options.fc, classes, self.seed).to(device)
            if options.fc.finetuned:
                tune = options.finetune
                head = finetune(self.pooled, self.truths, tune, head, self.seed, quiet=self.quiet)
            return head.state_dict()

        head = fc_of(self._cached("finetuned", form, make)).to(device)
        self.watch("finetuning")
        return head

    def _svm(self, rows: RowSource) -> LinearModel:
        options, target = self.options.svm, self.options.target
        if options.mining == "rounds":
            model, counts = fit_in_rounds(
                rows, self.truths, options, target, self.draw, self.watch, quiet=self.quiet
            )
            self.facts |= counts
            return model

        def make() -> Mapping[str, Tensor]:
            model, counts = fit_by_images(rows, self.truths, options, target, self.seed, quiet=self.quiet)
            self.facts.update(counts)
            return {"weight": model.weight, "bias": model.bias}

        head_key = rows.head_key if isinstance(rows, FcSource) else ""
        form = (head_key, self.options.fc.features, as_config(options), as_config(target))
        found = self._cached("svms", form, make)
        self.watch("svm")
        return LinearModel(found["weight"], found["bias"])

    def _boxes(self, rows: RowSource, svm: LinearModel) -> ProjectedRegressors | PooledRegressors | None:
        options, norm = self.options, self.options.svm.mean_norm
        if options.box.regression == "none":
            return None
        if options.box.regression == "projected":
            assert isinstance(self.pooled, MapSource)
            boxes = fit_projected(self.pooled, self.windows, self.truths, options.box, norm, self.draw)
            self.watch("regression")
            if options.iou.iou_head:
                task = IouHeadTask(
                    self.pooled, rows, self.windows, self.truths, svm, options.iou, options.post
                )
                boxes = fit_iou_head(task, boxes, self.draw)
                self.watch("iou_head")
            return boxes

        def make() -> Mapping[str, Tensor]:
            model, counts = fit_pooled(self.pooled, self.truths, options.box, norm, self.seed)
            self.facts.update(counts)
            return {"weight": model.model.weight, "bias": model.model.bias}

        found = self._cached("boxes", (as_config(options.box), norm), make)
        self.watch("regression")
        return PooledRegressors(LinearModel(found["weight"], found["bias"]))

    def _calibration(self, heads: Heads, rows: RowSource) -> Tensor:
        """Fit the sigmoids ``[K, 2]`` from decision scores to the probability of an IoU of at least 0.5."""
        scores: list[Tensor] = []
        right: list[Tensor] = []
        labels: list[Tensor] = []
        for i in self._calibration_images():
            position = (i, len(self.truths[i]))
            boxes, score, label = refined(self.pooled, rows, position, heads, self.options.post)
            overlaps = class_overlaps(boxes, self.truths[i])
            scores.append(score)
            labels.append(label)
            right.append(overlaps[torch.arange(len(label)), label] >= _MATCH_IOU)
        table = heads.calibration.clone()
        if not scores:
            return table
        score, label, hit = torch.cat(scores), torch.cat(labels), torch.cat(right)
        for number in range(len(heads.names)):
            mine = label == number
            if bool(hit[mine].any()) and not bool(hit[mine].all()):
                table[number] = torch.tensor(fit_sigmoid(score[mine], hit[mine]))
        return table

    def _calibration_images(self) -> list[int]:
        """Select every n-th image, and some images of each class that these do not contain."""
        truths, post = self.truths, self.options.post
        chosen = list(range(0, len(truths), max(1, len(truths) // post.calibration_images)))
        seen = {number for i in chosen for number in truths[i].labels.tolist()}
        most = post.calibration_per_class
        for number in range(len(self.dataset.names)):
            if number not in seen:
                showing = [i for i, truth in enumerate(truths) if number in truth.labels]
                chosen += showing[:: max(1, len(showing) // most)][:most]
        return sorted(set(chosen))


_STAGES = ("maps", "crops", "fc")


def truths_key(truths: Sequence[GroundTruth]) -> str:
    """Return a digest of all objects."""
    return key_of(
        [
            (t.names, tensors_key({"b": t.boxes.xyxy, "l": t.labels, "d": t.difficult, "c": t.crowd}))
            for t in truths
        ]
    )

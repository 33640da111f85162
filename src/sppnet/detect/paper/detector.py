"""The detector of the paper: train, predict, evaluate, save, load."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from sppnet.backbones import LayerInfo, load_backbone, prepare
from sppnet.backbones.weights import read_fc_weights
from sppnet.config import as_config
from sppnet.data import (
    Division,
    ImageSource,
    detection_to_fit,
    detection_to_measure,
    without_empty_classes,
)
from sppnet.detect.learnable import left_out
from sppnet.detect.paper.images import Image, image_of
from sppnet.detect.paper.options import PaperOptions
from sppnet.detect.paper.outcome import to_detections
from sppnet.detect.paper.stages import StageCache, network_key
from sppnet.detect.paper.training import (
    PaperHeads,
    fit_paper_heads,
    learned_rows,
    move_head,
    notes_of,
    pooled_source,
)
from sppnet.detect.paper.windows import learn_window_shapes, windows_of, with_truth
from sppnet.detect.postprocess import class_agnostic_nms
from sppnet.detect.result import DetectionResult
from sppnet.errors import UserError
from sppnet.estimators import Estimator, SavedState, TensorSpec, fresh_fit
from sppnet.estimators.tensors import check_window_shapes
from sppnet.evaluate import detection_metrics
from sppnet.features.network import backbone_tensors, pick_device
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.proposals import read_proposals
from sppnet.structures import Boxes, Detections, DetectionSet


@dataclass(init=False)
class PaperDetector(Estimator[DetectionResult]):
    """Finds objects as the paper does, stage by stage (paper section 3), or as R-CNN does (section 4).

    As in scikit-learn, the constructor stores its arguments, `fit` learns what ends in ``_``.

    Attributes:
        backbone: the network's name, as `sppnet.backbones.load_backbone` takes it.
        weights: its local weights, a safetensors file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        options: every stage's; single options can be given by their names.
        cache: a folder for finished stages; what was made by the same network, images and settings is
            taken from there. None keeps nothing.

    Examples:
        >>> PaperDetector(features="pool", svm__C=0.01).options.svm.C
        0.01
    """

    kind: ClassVar[str] = "paper-detector"
    supports_boxes: ClassVar[bool] = True

    backbone: str = "builtin"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    val_share: float | None = None
    options: PaperOptions = field(default_factory=PaperOptions)
    cache: Path | str | None = None

    def __init__(
        self,
        backbone: str = "builtin",
        weights: Path | str | None = None,
        device: str = "auto",
        seed: int = 0,
        val_share: float | None = None,
        options: PaperOptions | None = None,
        cache: Path | str | None = None,
        **single: Any,
    ) -> None:
        values = {"backbone": backbone, "weights": weights, "device": device, "seed": seed, "cache": cache}
        values |= {"val_share": val_share, "options": options or PaperOptions()}
        self._store(values, single)

    @fresh_fit
    def fit(
        self,
        data: str | os.PathLike[str] | DetectionSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
        quiet: bool = False,
    ) -> Self:
        """Learn from images with boxes.

        Args:
            data: a data set in VOC, COCO or YOLO layout, or one that was read.
            split: the part to learn from; the part for training when None.
            layout: the data set's layout, where looking is not enough.
            skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
            quiet: no progress bars.

        Returns:
            self, with ``names_``, ``heads_`` and ``summary_`` (seconds by stage, counts, bytes kept).

        Raises:
            UserError: data, weights or options at fault.
        """
        options = self._starting_options()
        watch = Stopwatch()
        division = Division(self.val_share, self.seed)
        declared, record = detection_to_fit(data, split, layout, division, skip_bad=skip_bad)
        dataset = without_empty_classes(declared, difficult=options.svm.difficult)
        layers = None if options.layer is None else (options.layer,)
        weights = None if self.weights is None else Path(self.weights)
        self.backbone_ = load_backbone(self.backbone, weights, layers, seed=self.seed)
        if options.mean_pixel is not None:
            self.backbone_.mean.fill_(options.mean_pixel / 255)
        self._prepare()
        self.shapes_ = learn_window_shapes(dataset)
        cache = self._cache()
        images = [image_of(item.path) for item in dataset.items]
        watch("setup")
        proposed = [
            windows_of(image, options.windows, self.given_, self.shapes_, cache)
            for image in track(images, "Windows", quiet=quiet)
        ]
        windows = with_truth(proposed, dataset)
        watch("windows")
        source = pooled_source(self.network_, self.network_key_, images, windows, options, cache)
        truths = [item.truth for item in dataset.items]
        heads, facts = fit_paper_heads(source, truths, options, self.seed, cache, watch, quiet=quiet)
        self.heads_, self.names_ = heads, dataset.names
        self.fitted_on_ = record
        self.category_ids_: tuple[int | str, ...] = dataset.category_ids
        kept = {f"{stage}_kept_mb": round(cache.bytes(stage) / 2**20, 1) for stage in ("maps", "crops", "fc")}
        self.summary_: dict[str, Any] = {
            "pipeline": self.options.pipeline,
            "pretrained_fc": options.finetune.weights is not None,
            "seconds": watch.seconds(),
            "images": len(dataset),
            "objects": sum(map(len, truths)),
            "windows": sum(map(len, proposed)),
            "row_bytes_a_window": 4 * source.length,
            **facts,
            "held_out_images": len(record.held_out),
            "classes_left_out": left_out(declared, dataset),
            "notes": [*dataset.notes, *notes_of(facts, self.options)],
            "stages_found": cache.found,
            "stages_made": cache.made,
            **kept,
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def _predict_one(self, source: ImageSource, threshold: float | None) -> DetectionResult:
        found = self.detect(source)
        likely = found[found.scores >= (0.5 if threshold is None else threshold)]
        return DetectionResult(class_agnostic_nms(likely), source, self.category_ids_)

    def detect(self, source: ImageSource) -> Detections:
        """Everything that the metrics look at in an image, best first; `combine` takes several.

        Raises:
            UserError: not fitted, or an image that cannot be read.
        """
        self._check_fitted()
        image = self._image(source)
        cache = self._cache()
        windows = windows_of(image, self.options.windows, self.given_, self.shapes_, cache)
        if not len(windows):
            return Detections.empty(image.size, self.names_)
        pooled = pooled_source(self.network_, self.network_key_, [image], [windows], self.options, cache)
        rows = learned_rows(pooled, self.heads_.head, cache)
        scores = rows.scores(0, self.heads_.svm)
        heads = self.heads_
        return to_detections(
            windows, scores, lambda which: pooled.rows(0, which), heads.boxes, heads.names, self.options
        )

    def proposals(self, source: ImageSource) -> Boxes:
        """Return the proposals of an image that `detect` scores.

        Raises:
            UserError: not fitted, or an image that cannot be read.
        """
        self._check_fitted()
        image = self._image(source)
        return windows_of(image, self.options.windows, self.given_, self.shapes_, self._cache())

    def _image(self, source: ImageSource) -> Image:
        """Return an image, without a key where nothing is cached."""
        image = image_of(source)
        return dataclasses.replace(image, key="") if self.cache is None else image

    def evaluate(
        self,
        data: str | os.PathLike[str] | DetectionSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Measure on images with boxes; see `sppnet.detect.Detector.evaluate`.

        Raises:
            UserError: not fitted, or data at fault.
        """
        self._check_fitted()
        dataset, facts = self.to_measure(data, split, layout=layout, skip_bad=skip_bad)
        found = [self.detect(item.path) for item in track(dataset.items, "Evaluating", quiet=quiet)]
        metrics = detection_metrics(found, [item.truth for item in dataset.items])
        return {**metrics, **facts, "notes": list(dataset.notes)}

    def to_measure(
        self,
        data: str | os.PathLike[str] | DetectionSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
    ) -> tuple[DetectionSet, dict[str, object]]:
        """The images that `evaluate` measures of some data, and its "held_out" and "trained_on".

        Raises:
            UserError: not fitted, or data at fault.
        """
        self._check_fitted()
        return detection_to_measure(
            data,
            split,
            layout,
            self.names_,
            self.fitted_on_,
            skip_bad=skip_bad,
            unlearned=self.summary_.get("classes_left_out", ()),
        )

    def _saved_config(self) -> dict[str, object]:
        return as_config(dataclasses.replace(self, cache=None))

    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        tensors = {"shapes": self.shapes_, **self.heads_.tensors(), **backbone_tensors(self.backbone_)}
        return tensors, {"category_ids": list(self.category_ids_), "backbone": self.backbone_.spec()}

    def _restore(self, state: SavedState) -> None:
        self.backbone_ = state.backbone()
        self._prepare()
        tensors = state.tensors
        state.check(*_tensor_table(self.backbone_.layers, self.options))
        check_window_shapes(tensors["shapes"], state.file)
        self.category_ids_ = state.category_ids()
        self.heads_ = move_head(PaperHeads.of(state.names, tensors), self.network_.device)
        self.shapes_ = tensors["shapes"]

    def _starting_options(self) -> PaperOptions:
        """Return the options of a fit, with the pretrained fc6 and fc7 that it starts from, checked.

        A run of ``sppnet train classify`` as the backbone's weights has them too.
        """
        options, tune = self.options, self.options.finetune
        if options.features == "pool":
            return options
        path, required = tune.weights, True
        if path is None and self.weights is not None and not tune.random_start:
            path, required = Path(self.weights), False
        given = None if path is None else read_fc_weights(path, required=required)
        if given is None:
            return options
        if given.levels is not None and given.levels != options.levels:
            wanted = f"the levels {given.levels} that fc6 in {given.path} was trained with"
            todo = "Pass these levels, or finetune.random_start to take the convolutions alone."
            raise UserError("options.levels", wanted, options.levels, todo)
        return dataclasses.replace(options, finetune=dataclasses.replace(tune, weights=given.path))

    def _prepare(self) -> None:
        self.network_ = prepare(self.backbone_, pick_device(self.device))
        self.network_key_ = network_key(self.network_)
        file = self.options.windows.file
        self.given_ = None if file is None else read_proposals(file)

    def _cache(self) -> StageCache:
        return StageCache(None if self.cache is None else Path(self.cache))


def _tensor_table(
    layers: Sequence[LayerInfo], options: PaperOptions
) -> tuple[list[TensorSpec], dict[str, int]]:
    """The tensors of a run beside the backbone's: K classes, R pooled features, D that the SVMs see."""
    pooled = sum(n * n for n in options.levels) * sum(info.channels for info in layers)
    sizes = {"R": pooled}
    table = [
        TensorSpec("shapes", ("S", 2)),
        TensorSpec("svm.weight", ("K", {"pool": "R", "fc6": "V", "fc7": "W"}[options.features])),
        TensorSpec("svm.bias", ("K",)),
    ]
    if options.boxes.regress:
        table += [TensorSpec("boxes.weight", ("4*K", "R")), TensorSpec("boxes.bias", ("4*K",))]
    if options.features != "pool":
        table += [
            TensorSpec("fc.scale", ()),
            TensorSpec("fc.fc6.weight", ("V", "R")),
            TensorSpec("fc.fc6.bias", ("V",)),
            TensorSpec("fc.fc7.weight", ("W", "V")),
            TensorSpec("fc.fc7.bias", ("W",)),
            TensorSpec("fc.fc8.weight", ("K+1", "W")),
            TensorSpec("fc.fc8.bias", ("K+1",)),
        ]
    return table, sizes

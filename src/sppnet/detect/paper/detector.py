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
from sppnet.config import as_config
from sppnet.data import ImageSource, default_split, detection_for, read_detection
from sppnet.detect.paper.images import image_of
from sppnet.detect.paper.options import PaperOptions
from sppnet.detect.paper.outcome import to_detections
from sppnet.detect.paper.stages import StageCache, network_key
from sppnet.detect.paper.training import PaperHeads, fit_paper_heads, learned_rows, move_head, pooled_source
from sppnet.detect.paper.windows import learn_window_shapes, windows_of, with_truth
from sppnet.detect.postprocess import class_agnostic_nms
from sppnet.detect.result import DetectionResult
from sppnet.estimators import Estimator, SavedState, TensorSpec, fresh_fit
from sppnet.estimators.tensors import check_window_shapes
from sppnet.evaluate import detection_metrics
from sppnet.features.network import backbone_tensors, pick_device
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.proposals import read_proposals
from sppnet.structures import Detections


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

    backbone: str = "builtin"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    options: PaperOptions = field(default_factory=PaperOptions)
    cache: Path | str | None = None

    def __init__(
        self,
        backbone: str = "builtin",
        weights: Path | str | None = None,
        device: str = "auto",
        seed: int = 0,
        options: PaperOptions | None = None,
        cache: Path | str | None = None,
        **single: Any,
    ) -> None:
        values = {"backbone": backbone, "weights": weights, "device": device, "seed": seed, "cache": cache}
        self._store({**values, "options": options or PaperOptions()}, single)

    @fresh_fit
    def fit(
        self,
        data: str | os.PathLike[str],
        split: str | None = None,
        *,
        layout: str | None = None,
        quiet: bool = False,
    ) -> Self:
        """Learn from images with boxes.

        Args:
            data: a data set in VOC, COCO or YOLO layout.
            split: the part to learn from; the part for training when None.
            layout: the data set's layout, where looking is not enough.
            quiet: no progress bars.

        Returns:
            self, with ``names_``, ``heads_`` and ``summary_`` (seconds by stage, counts, bytes kept).

        Raises:
            UserError: data, weights or options at fault.
        """
        watch = Stopwatch()
        dataset = read_detection(data, split, layout)
        layers = None if self.options.layer is None else (self.options.layer,)
        weights = None if self.weights is None else Path(self.weights)
        self.backbone_ = load_backbone(self.backbone, weights, layers, seed=self.seed)
        self._prepare()
        self.shapes_ = learn_window_shapes(dataset)
        cache = self._cache()
        images = [image_of(item.path) for item in dataset.items]
        watch("setup")
        proposed = [
            windows_of(image, self.options.windows, self.given_, self.shapes_, cache)
            for image in track(images, "Windows", quiet=quiet)
        ]
        windows = with_truth(proposed, dataset)
        watch("windows")
        source = pooled_source(self.network_, self.network_key_, images, windows, self.options, cache)
        truths = [item.truth for item in dataset.items]
        heads, facts = fit_paper_heads(source, truths, self.options, self.seed, cache, watch, quiet=quiet)
        self.heads_, self.names_ = heads, dataset.names
        kept = {f"{stage}_kept_mb": round(cache.bytes(stage) / 2**20, 1) for stage in ("maps", "crops", "fc")}
        self.summary_: dict[str, Any] = {
            "pipeline": self.options.pipeline,
            "seconds": watch.seconds(),
            "images": len(dataset),
            "objects": sum(map(len, truths)),
            "windows": sum(map(len, proposed)),
            "row_bytes_a_window": 4 * source.length,
            **facts,
            "stages_found": cache.found,
            "stages_made": cache.made,
            **kept,
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def _predict_one(self, source: ImageSource, threshold: float | None) -> DetectionResult:
        found = self.detect(source)
        likely = found[found.scores >= (0.5 if threshold is None else threshold)]
        return DetectionResult(class_agnostic_nms(likely), source)

    def detect(self, source: ImageSource) -> Detections:
        """Everything that the metrics look at in an image, best first; `combine` takes several.

        Raises:
            UserError: not fitted, or an image that cannot be read.
        """
        self._check_fitted()
        image = image_of(source)
        if self.cache is None:
            image = dataclasses.replace(image, key="")
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

    def evaluate(
        self,
        data: str | os.PathLike[str],
        split: str | None = None,
        *,
        layout: str | None = None,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Measure on images with boxes; see `sppnet.detect.Detector.evaluate`.

        Raises:
            UserError: not fitted, or data at fault.
        """
        self._check_fitted()
        part = default_split(data, "evaluate", layout) if split is None else split
        dataset = detection_for(read_detection(data, part, layout), self.names_)
        found = [self.detect(item.path) for item in track(dataset.items, "Evaluating", quiet=quiet)]
        return detection_metrics(found, [item.truth for item in dataset.items])

    def _saved_config(self) -> dict[str, object]:
        return as_config(dataclasses.replace(self, cache=None))

    def _check_loaded(self) -> None:
        finetune = dataclasses.replace(self.options.finetune, weights=None)
        dataclasses.replace(self, options=dataclasses.replace(self.options, finetune=finetune)).check_params()

    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        tensors = {"shapes": self.shapes_, **self.heads_.tensors(), **backbone_tensors(self.backbone_)}
        return tensors, {"backbone": self.backbone_.spec()}

    def _restore(self, state: SavedState) -> None:
        self.backbone_ = state.backbone()
        self._prepare()
        tensors = state.tensors
        state.check(*_tensor_table(self.backbone_.layers, self.options))
        check_window_shapes(tensors["shapes"], state.file)
        self.heads_ = move_head(PaperHeads.of(state.names, tensors), self.network_.device)
        self.shapes_ = tensors["shapes"]

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
        TensorSpec("svm.weight", ("K", "W" if options.features != "pool" else "R")),
        TensorSpec("svm.bias", ("K",)),
    ]
    if options.boxes.regress:
        table += [TensorSpec("boxes.weight", ("4*K", "R")), TensorSpec("boxes.bias", ("4*K",))]
    if options.features != "pool":
        table += [
            TensorSpec("fc.scale", ()),
            TensorSpec("fc.fc6.weight", ("W", "R")),
            TensorSpec("fc.fc6.bias", ("W",)),
            TensorSpec("fc.fc7.weight", ("W", "W")),
            TensorSpec("fc.fc7.bias", ("W",)),
            TensorSpec("fc.fc8.weight", ("K+1", "W")),
            TensorSpec("fc.fc8.bias", ("K+1",)),
        ]
    return table, sizes

"""The detector: fit, predict, evaluate."""

from __future__ import annotations

import dataclasses
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from sppnet.backbones import load_backbone, prepare
from sppnet.config import DEFAULT_BACKBONE, as_config
from sppnet.data import Division, ImageSource, detection_to_fit, detection_to_measure, read_pixels
from sppnet.detect.fc_head import with_pretrained_fc
from sppnet.detect.fitting import Fit, pooled_source, svm_source
from sppnet.detect.heads import Heads, tensor_table
from sppnet.detect.images import image_of
from sppnet.detect.options import DetectorOptions
from sppnet.detect.postprocess import at_threshold, detect
from sppnet.detect.result import DetectionResult
from sppnet.detect.targets import learnable, left_out
from sppnet.detect.tiles import Tiling, detect_in_tiles, tiled_set
from sppnet.detect.windows import ImageWindows, learn_shapes, make_source
from sppnet.errors import UserError
from sppnet.estimators import Estimator, SavedState, fresh_fit
from sppnet.estimators.tensors import check_window_shapes
from sppnet.evaluate import detection_metrics
from sppnet.features.network import backbone_tensors, pick_device
from sppnet.features.store import StageStore
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.structures import Boxes, Detections, DetectionSet


@dataclass(init=False)
class Detector(Estimator[DetectionResult]):
    """Finds objects: a frozen network's maps, pooled proposals, one SVM and one box regressor per class.

    The pipeline of section 4. Its stages are the same for all presets of `DetectorOptions`: ``fast()``, the
    default, with dense windows and an IoU head; ``paper()`` and ``release()``, with fine-tuned fully
    connected layers; ``rcnn()``, which crops proposals before it convolves them.

    Attributes:
        backbone: the network's name, as `sppnet.backbones.load_backbone` takes it.
        weights: its local weights, a safetensors file or a run; nothing is downloaded then.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: seed of all random numbers.
        val_share: the share of the images of a data set without splits that `fit` holds out and `evaluate`
            measures. None is 0.2 for a path, and 0 for a data set object, of which all images are used.
        options: of all stages; single options can be given by their names.
        cache: a folder for finished stages; what was made by the same network, images and options is taken
            from there. None caches nothing beyond a fit.

    Examples:
        >>> detector = Detector(seed=1, nms=0.5)
        >>> detector == Detector(seed=1, options=DetectorOptions(nms=0.5))
        True
        >>> Detector("zf5", options=DetectorOptions.paper(), C=0.01).options.svm.C
        0.01
    """

    kind: ClassVar[str] = "detector"
    supports_boxes: ClassVar[bool] = True

    backbone: str = DEFAULT_BACKBONE
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    val_share: float | None = None
    options: DetectorOptions = field(default_factory=DetectorOptions)
    cache: Path | str | None = None

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        weights: Path | str | None = None,
        device: str = "auto",
        seed: int = 0,
        val_share: float | None = None,
        options: DetectorOptions | None = None,
        cache: Path | str | None = None,
        **single: Any,
    ) -> None:
        values = {"backbone": backbone, "weights": weights, "device": device, "seed": seed, "cache": cache}
        values |= {"val_share": val_share, "options": options or DetectorOptions()}
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

        Everything that annotations decide is checked before the network runs. Classes without objects to
        learn from are left out.

        Args:
            data: a data set in VOC, COCO or YOLO layout, or one that was read.
            split: the part to learn from; the part for training when None.
            layout: the layout of the data; detected automatically when None.
            skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
            quiet: no progress bars.

        Returns:
            self, with ``names_``, ``summary_`` (seconds by stage, counts, notes, peak memory), ``fitted_on_``
            (digests of the images fitted on and held out) and the heads.

        Raises:
            UserError: the data, the weights or an option are invalid.
        """
        watch = Stopwatch()
        options = with_pretrained_fc(self.options, self.weights)
        division = Division(self.val_share, self.seed)
        declared, record = detection_to_fit(data, split, layout, division, skip_bad=skip_bad)
        dataset = learnable(declared, options.target)
        weights = None if self.weights is None else Path(self.weights)
        self.backbone_ = load_backbone(self.backbone, weights, options.map.layers, seed=self.seed)
        if options.map.mean_pixel is not None:
            self.backbone_.mean.fill_(options.map.mean_pixel / 255)
        self.network_ = prepare(self.backbone_, pick_device(self.device))
        folder = None if self.cache is None else Path(self.cache)
        with (
            self._tiled(dataset, quiet=quiet) as tiles,
            StageStore(options.pool.cache_mb * 2**20, folder) as store,
        ):
            self.shapes_ = learn_shapes(tiles, options.window.shapes)
            self.proposals_ = make_source(options.window, self.shapes_)
            watch("setup")
            run = Fit(self.network_, tiles, self.proposals_, options, self.seed, store, watch, quiet)
            self.heads_ = run.run()
        self.names_ = dataset.names
        self.fitted_on_ = record
        self.category_ids_: tuple[int | str, ...] = dataset.category_ids
        self.summary_: dict[str, Any] = {
            "pipeline": options.pool.pipeline,
            "pretrained_fc": options.fc.fc_weights is not None,
            "seconds": watch.seconds(),
            **run.facts,
            "held_out_images": len(record.held_out),
            "classes_left_out": left_out(declared, dataset),
            "notes": [*dataset.notes, *run.notes()],
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def _tiled(self, dataset: DetectionSet, *, quiet: bool) -> AbstractContextManager[DetectionSet]:
        """Return the data set, or the set of its tiles."""
        if not self.options.map.tile:
            return nullcontext(dataset)
        return tiled_set(dataset, self._tiling(), self.seed, quiet=quiet)

    def _tiling(self) -> Tiling:
        return Tiling(self.options.map.tile, self.options.map.overlap)

    def _predict_one(self, source: ImageSource, threshold: float | None) -> DetectionResult:
        post = self.options.post
        found = at_threshold(self.detect(source), post.threshold if threshold is None else threshold, post)
        return DetectionResult(found, source, self.category_ids_)

    def detect(self, source: ImageSource) -> Detections:
        """Return all detections of an image, best first, as ``predict(source, threshold=0)`` does.

        Raises:
            UserError: not fitted, or an image that cannot be read.
        """
        self._check_fitted()
        if self.options.map.tile:
            tiles = (read_pixels(source), self._tiling(), self._detect_tile)
            return detect_in_tiles(*tiles, self.options.post.nms)
        if self.cache is None:
            return self._detect(source, None)
        with StageStore(0, Path(self.cache)) as store:
            return self._detect(source, store)

    def _detect_tile(self, image: Tensor) -> Detections:
        return self._detect(image, None)

    def _detect(self, source: ImageSource, store: StageStore | None) -> Detections:
        windows = self._windows(source, store)
        pooled = pooled_source(self.network_, windows.images, windows, self.options, store)
        rows = svm_source(pooled, self.heads_.fc, self.options)
        return detect(pooled, rows, self.heads_, self.options.post)

    def proposals(self, source: ImageSource) -> Boxes:
        """Return the proposals of an image that `detect` scores.

        Raises:
            UserError: not fitted, or an image that cannot be read.
        """
        self._check_fitted()
        if self.cache is None:
            return self._windows(source, None)[0]
        with StageStore(0, Path(self.cache)) as store:
            return self._windows(source, store)[0]

    def _windows(self, source: ImageSource, store: StageStore | None) -> ImageWindows:
        file = self.options.window.proposals
        if file is not None and not self.proposals_.table:
            hint = "Restore it: this run has no proposals of its own"
            raise UserError(file, "the file of proposals of this run", "no such file", hint)
        image = image_of(source, keyed=store is not None)
        return ImageWindows([image], self.proposals_, self.options.window, store)

    def evaluate(
        self,
        data: str | os.PathLike[str] | DetectionSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Measure what ``predict(threshold=0)`` returns on images with boxes.

        Of a data set without splits that `fit` divided, the held-out images are measured.

        Args:
            data: a data set whose classes are among the detector's, or one that was read.
            split: the part to measure on; the part for validation or test when None.
            layout: the layout of the data; detected automatically when None.
            skip_bad: skip damaged images; otherwise an error lists all of them.
            quiet: show no progress bars.

        Returns:
            The result of `sppnet.evaluate.detection_metrics` ("AP50", "AP75", "AP", "per_class", ...),
            "threshold" (the default threshold of `predict`), "held_out" (whether held-out images are
            evaluated), "trained_on" (number of evaluated images that were fitted on; None if unknown) and
            "notes" (a list of sentences).

        Raises:
            UserError: the detector is not fitted, or the data are invalid.
        """
        self._check_fitted()
        dataset, facts = self.to_measure(data, split, layout=layout, skip_bad=skip_bad)
        items = track(dataset.items, "Evaluating", quiet=quiet)
        found = [self._predict_one(item.path, 0.0).detections for item in items]
        metrics = detection_metrics(found, [item.truth for item in dataset.items])
        shown = {"threshold": self.options.post.threshold}
        return {**metrics, **shown, **facts, "notes": list(dataset.notes)}

    def to_measure(
        self,
        data: str | os.PathLike[str] | DetectionSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
    ) -> tuple[DetectionSet, dict[str, object]]:
        """Return the images that `evaluate` uses, and its "held_out" and "trained_on".

        Raises:
            UserError: the detector is not fitted, or the data are invalid.
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

    def _check_loaded(self) -> None:
        # Files that only fitting needs may be gone; so may a file of proposals, which predict asks for.
        options = self.options.replace(fc_weights=None, proposals=None)
        dataclasses.replace(self, options=options).check_params()

    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        tensors = {"shapes": self.shapes_, **self.heads_.tensors(), **backbone_tensors(self.backbone_)}
        return tensors, {"category_ids": list(self.category_ids_), "backbone": self.backbone_.spec()}

    def _restore(self, state: SavedState) -> None:
        self.backbone_ = state.backbone()
        layers, tensors = self.backbone_.layers, state.tensors
        with_iou_head = "iou_head.first.weight" in tensors
        state.check(*tensor_table(layers, self.options, with_iou_head=with_iou_head))
        check_window_shapes(tensors["shapes"], state.file)
        self.category_ids_ = state.category_ids()
        self.network_ = prepare(self.backbone_, pick_device(self.device))
        heads = Heads.of(state.names, tensors, self.options, [layer.name for layer in layers])
        self.heads_ = heads.to(self.network_.device)
        self.shapes_ = tensors["shapes"]
        self.proposals_ = make_source(self.options.window, self.shapes_, required=False)

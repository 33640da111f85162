"""The detector of the paper: train, predict, evaluate, save, load."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from sppnet.backbones import load_backbone, prepare
from sppnet.config import as_config, from_config
from sppnet.data import (
    Division,
    FittedOn,
    ImageSource,
    detection_to_fit,
    detection_to_measure,
    without_empty_classes,
)
from sppnet.detect.learnable import left_out
from sppnet.detect.paper.images import image_of
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
from sppnet.evaluate import detection_metrics
from sppnet.features.network import backbone_tensors, pick_device, restore_backbone
from sppnet.predicting import FailedSource, predict_each, predict_sources
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.proposals import read_proposals
from sppnet.runs import load_run, save_run
from sppnet.structures import Detections, DetectionSet

KIND = "paper-detector"


@dataclass
class PaperDetector:
    """Finds objects as the paper does, stage by stage (paper section 3), or as R-CNN does (section 4).

    As in scikit-learn, the constructor stores its arguments, `fit` learns what ends in ``_``.

    Attributes:
        backbone: the network's name, as `sppnet.backbones.load_backbone` takes it.
        weights: its local weights, a safetensors file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        val_share: the share of the images of a data set without splits that `fit` holds out and `evaluate`
            measures. None is 0.2 for a path, and 0 for a data set object, of which all images are used.
        options: every stage's.
        cache: a folder for finished stages; what was made by the same network, images and settings is
            taken from there. None keeps nothing.
    """

    backbone: str = "builtin"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    val_share: float | None = None
    options: PaperOptions = field(default_factory=PaperOptions)
    cache: Path | str | None = None

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
        self.options.check()
        watch = Stopwatch()
        division = Division(self.val_share, self.seed)
        declared, record = detection_to_fit(data, split, layout, division, skip_bad=skip_bad)
        dataset = without_empty_classes(declared, difficult=self.options.svm.difficult)
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
        self.fitted_on_: FittedOn | None = record
        self.category_ids_: tuple[int | str, ...] = dataset.category_ids
        kept = {f"{stage}_kept_mb": round(cache.bytes(stage) / 2**20, 1) for stage in ("maps", "crops", "fc")}
        self.summary_: dict[str, Any] = {
            "pipeline": self.options.pipeline,
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

    def predict(
        self,
        source: ImageSource | Sequence[ImageSource] | Iterator[ImageSource],
        *,
        threshold: float | None = None,
    ) -> DetectionResult | list[DetectionResult]:
        """Detect objects in an image, or in each of a list; one answer an object.

        Args:
            source: a path, bytes, a binary file, a PIL image, an array or a tensor (see
                `sppnet.data.read_pixels`), or a list or iterator of them.
            threshold: leave out what scores less; 0.5, the SVMs' own border, when None.

        Raises:
            UserError: not fitted, or an image that cannot be read.
            SourcesError: some images of a list that cannot be read; it holds the results of all others.
        """
        self._check_fitted()
        return predict_sources(lambda one: self._predict_one(one, threshold), source)

    def predict_iter(
        self, sources: Iterable[ImageSource], *, threshold: float | None = None
    ) -> Iterator[DetectionResult | FailedSource]:
        """Yield the result of every image in order, in bounded memory.

        An image that cannot be read yields a `FailedSource`, whose ``error`` says why; ``error`` is None in
        a result.

        Args:
            sources: any iterable of what `predict` takes.
            threshold: as in `predict`.

        Raises:
            UserError: not fitted, or no iterable.
        """
        self._check_fitted()
        return predict_each(lambda one: self._predict_one(one, threshold), sources)

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

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder that `load`, ``sppnet evaluate`` and ``sppnet predict`` need nothing beside.

        Raises:
            UserError: not fitted, or a folder that may not be written.
        """
        self._check_fitted()
        tensors = {"shapes": self.shapes_, **self.heads_.tensors(), **backbone_tensors(self.backbone_)}
        model: dict[str, object] = {
            "names": list(self.names_),
            "category_ids": list(self.category_ids_),
            "backbone": self.backbone_.spec(),
            "summary": self.summary_,
            "fitted_on": None if self.fitted_on_ is None else self.fitted_on_.to_dict(),
        }
        config = as_config(dataclasses.replace(self, cache=None))
        return save_run(Path(folder), KIND, config, tensors, model, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Self:
        """Read a run folder that `save` wrote.

        Raises:
            UserError: no run of such a detector of this version, or a damaged one.
        """
        run = load_run(Path(folder), KIND)
        ours = from_config(cls, run.config, run.folder / "config.toml")
        ours.device = device
        model, tensors = cast("dict[str, Any]", run.model), run.tensors
        ours.backbone_ = restore_backbone(model["backbone"], tensors, run.folder)
        ours._prepare()
        try:
            ours.names_ = tuple(model["names"])
            ours.category_ids_ = tuple(model.get("category_ids", range(1, len(ours.names_) + 1)))
            ours.heads_ = move_head(PaperHeads.of(ours.names_, tensors), ours.network_.device)
            ours.shapes_ = tensors["shapes"]
            ours.summary_ = dict(model["summary"])
            ours.fitted_on_ = FittedOn.from_dict(model.get("fitted_on"), run.folder / "model.json")
        except KeyError as error:
            raise UserError(run.folder, "a whole run", f"one without {error}", "Train again.") from error
        return ours

    def _prepare(self) -> None:
        self.network_ = prepare(self.backbone_, pick_device(self.device))
        self.network_key_ = network_key(self.network_)
        file = self.options.windows.file
        self.given_ = None if file is None else read_proposals(file)

    def _cache(self) -> StageCache:
        return StageCache(None if self.cache is None else Path(self.cache))

    def _check_fitted(self) -> None:
        if not hasattr(self, "heads_"):
            raise UserError(
                "PaperDetector", "a trained detector", "one that is not", "Call fit or load first."
            )

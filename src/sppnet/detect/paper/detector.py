"""The detector of the paper: train, predict, evaluate, save, load."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from sppnet.backbones import load_backbone, prepare
from sppnet.backbones.weights import read_fc_weights
from sppnet.config import as_config, from_config
from sppnet.data import ImageSource, default_split, detection_for, read_detection
from sppnet.detect.paper.images import Image, image_of
from sppnet.detect.paper.options import PaperOptions
from sppnet.detect.paper.outcome import to_detections
from sppnet.detect.paper.stages import StageCache, network_key
from sppnet.detect.paper.training import PaperHeads, fit_paper_heads, learned_rows, move_head, pooled_source
from sppnet.detect.paper.windows import learn_window_shapes, windows_of, with_truth
from sppnet.detect.postprocess import class_agnostic_nms
from sppnet.detect.result import DetectionResult
from sppnet.errors import UserError
from sppnet.evaluate import detection_metrics
from sppnet.features.network import backbone_tensors, pick_device, restore_backbone
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.proposals import read_proposals
from sppnet.runs import load_run, save_run
from sppnet.structures import Boxes, Detections

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
        options: every stage's.
        cache: a folder for finished stages; what was made by the same network, images and settings is
            taken from there. None keeps nothing.
    """

    backbone: str = "builtin"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    options: PaperOptions = field(default_factory=PaperOptions)
    cache: Path | str | None = None

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
        self.options.check()
        options = self._starting_options()
        watch = Stopwatch()
        dataset = read_detection(data, split, layout)
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
            "stages_found": cache.found,
            "stages_made": cache.made,
            **kept,
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def predict(
        self, source: ImageSource | Sequence[ImageSource], *, threshold: float | None = None
    ) -> DetectionResult | list[DetectionResult]:
        """Detect objects in an image, or in each of a list; one answer an object.

        Args:
            source: a path, a PIL image, an array (RGB, uint8), or a list of them.
            threshold: leave out what scores less; 0.5, the SVMs' own border, when None.

        Raises:
            UserError: not fitted, or an image that cannot be read.
        """
        if isinstance(source, (list, tuple)):
            return [self._predict_one(one, threshold) for one in cast("Sequence[ImageSource]", source)]
        return self._predict_one(cast("ImageSource", source), threshold)

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

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder that `load`, ``sppnet evaluate`` and ``sppnet predict`` need nothing beside.

        Raises:
            UserError: not fitted, or a folder that may not be written.
        """
        self._check_fitted()
        tensors = {"shapes": self.shapes_, **self.heads_.tensors(), **backbone_tensors(self.backbone_)}
        model: dict[str, object] = {
            "names": list(self.names_),
            "backbone": self.backbone_.spec(),
            "summary": self.summary_,
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
            ours.heads_ = move_head(PaperHeads.of(ours.names_, tensors), ours.network_.device)
            ours.shapes_ = tensors["shapes"]
            ours.summary_ = dict(model["summary"])
        except KeyError as error:
            raise UserError(run.folder, "a whole run", f"one without {error}", "Train again.") from error
        return ours

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

    def _check_fitted(self) -> None:
        if not hasattr(self, "heads_"):
            raise UserError(
                "PaperDetector", "a trained detector", "one that is not", "Call fit or load first."
            )

"""The detector: fit, predict, evaluate, save, load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, cast

from torch import Tensor

from sppnet.backbones import load_backbone, prepare
from sppnet.config import as_config, from_config
from sppnet.data import ImageSource, default_split, detection_for, read_detection, read_image
from sppnet.detect.fitting import fit_heads, learn_shapes, maps_of, windows_of
from sppnet.detect.options import DetectorOptions
from sppnet.detect.postprocess import Heads, class_agnostic_nms, detect
from sppnet.detect.regression import Projection, Regressors
from sppnet.detect.result import DetectionResult
from sppnet.errors import UserError
from sppnet.evaluate import detection_metrics
from sppnet.features.network import backbone_tensors, pick_device, restore_backbone
from sppnet.learn import MLP, LinearModel
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.proposals import read_proposals
from sppnet.runs import load_run, save_run
from sppnet.structures import Detections, DetectionSet, ImageSize


@dataclass
class Detector:
    """Finds objects: a frozen backbone's maps, pooled windows, one SVM and one box regressor a class.

    The pipeline of the paper's section 3, with dense windows or boxes from a file as proposals. As in
    scikit-learn, the constructor stores its arguments, `fit` learns what ends in ``_`` and returns self.

    Attributes:
        backbone: ``builtin``, ``torchvision:NAME`` or ``timm:NAME``.
        weights: local weights of the backbone, a safetensors file; nothing is downloaded then.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        options: how windows are made, pooled, scored and merged.
    """

    backbone: str = "builtin"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    options: DetectorOptions = field(default_factory=DetectorOptions)

    def fit(
        self,
        data: str | os.PathLike[str] | DetectionSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        quiet: bool = False,
    ) -> Self:
        """Learn from images with boxes.

        Args:
            data: a data set in VOC, COCO or YOLO layout, or one that was read.
            split: the part to learn from; the part for training when None.
            layout: the data set's layout, where looking is not enough.
            quiet: no progress bars.

        Returns:
            self, with ``names_``, ``summary_`` (seconds by stage, counts, peak memory) and the heads.

        Raises:
            UserError: data, weights or options at fault.
        """
        self.options.check()
        watch = Stopwatch()
        dataset = data if isinstance(data, DetectionSet) else read_detection(data, split, layout)
        weights = None if self.weights is None else Path(self.weights)
        self.backbone_ = load_backbone(self.backbone, weights, seed=self.seed)
        self.network_ = prepare(self.backbone_, pick_device(self.device))
        self.proposals_ = None if self.options.proposals is None else read_proposals(self.options.proposals)
        self.shapes_ = learn_shapes(dataset, self.options.shapes)
        watch("setup")
        self.heads_, facts = fit_heads(
            self.network_,
            dataset,
            self.shapes_,
            self.options,
            self.proposals_,
            self.seed,
            watch,
            quiet=quiet,
        )
        self.names_ = dataset.names
        self.summary_: dict[str, Any] = {
            "seconds": watch.seconds(),
            **facts,
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def predict(
        self, source: ImageSource | Sequence[ImageSource], *, threshold: float | None = None
    ) -> DetectionResult | list[DetectionResult]:
        """Detect objects in an image, or in each of a list; one answer an object (`class_agnostic_nms`).

        Args:
            source: a path, a PIL image, an array (RGB, uint8), or a list of them.
            threshold: leave out what is less probable; 0.5 when None.

        Raises:
            UserError: not fitted, or an image that cannot be read.
        """
        if isinstance(source, (list, tuple)):
            return [self._predict_one(one, threshold) for one in cast("Sequence[ImageSource]", source)]
        return self._predict_one(cast("ImageSource", source), threshold)

    def _predict_one(self, source: ImageSource, threshold: float | None) -> DetectionResult:
        found = self._detect(source)
        likely = found[found.scores >= (0.5 if threshold is None else threshold)]
        return DetectionResult(class_agnostic_nms(likely), source)

    def _detect(self, source: ImageSource) -> Detections:
        self._check_fitted()
        image = read_image(source)
        size = ImageSize(image.shape[1], image.shape[2])
        path = Path(source) if isinstance(source, (str, os.PathLike)) else None
        windows = windows_of(size, self.shapes_, self.options, self.proposals_, path)
        if not len(windows):
            return Detections.empty(size, self.names_)
        return detect(maps_of(self.network_, image, self.options), windows, self.heads_, self.options)

    def evaluate(
        self,
        data: str | os.PathLike[str] | DetectionSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Measure on images with boxes.

        Args:
            data: a data set whose classes are among the detector's, or one that was read.
            split: the part to measure on; the part for validation or test when None.
            layout: the data set's layout, where looking is not enough.
            quiet: no progress bars.

        Returns:
            What `sppnet.evaluate.detection_metrics` returns: "AP50", "AP75", "AP", "per_class", ...

        Raises:
            UserError: not fitted, or data at fault.
        """
        self._check_fitted()
        if not isinstance(data, DetectionSet):
            part = default_split(data, "evaluate", layout) if split is None else split
            data = read_detection(data, part, layout)
        dataset = detection_for(data, self.names_)
        found = [self._detect(item.path) for item in track(dataset.items, "Evaluating", quiet=quiet)]
        return detection_metrics(found, [item.truth for item in dataset.items])

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder that `load` and ``sppnet predict`` need nothing beside.

        Raises:
            UserError: not fitted, or a folder that may not be written.
        """
        self._check_fitted()
        heads, projection = self.heads_, self.heads_.regressors.projection
        tensors: dict[str, Tensor] = {
            "svm.weight": heads.svm.weight,
            "svm.bias": heads.svm.bias,
            "regressors.weight": heads.regressors.model.weight,
            "regressors.bias": heads.regressors.model.bias,
            "calibration": heads.calibration,
            "shapes": self.shapes_,
        }
        for i, (mean, basis) in enumerate(zip(projection.means, projection.bases, strict=True)):
            tensors |= {f"projection.{i}.mean": mean, f"projection.{i}.basis": basis}
        if (iou_head := heads.regressors.iou_head) is not None:
            for name, part in (("first", iou_head.first), ("second", iou_head.second)):
                tensors |= {f"iou_head.{name}.weight": part.weight, f"iou_head.{name}.bias": part.bias}
        tensors |= backbone_tensors(self.backbone_)
        model: dict[str, object] = {
            "names": list(self.names_),
            "backbone": self.backbone_.spec(),
            "layers": list(projection.layers),
            "summary": self.summary_,
        }
        return save_run(Path(folder), "detector", as_config(self), tensors, model, overwrite=overwrite)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        part: Literal["all", "features", "box-features"] = "all",
        precision: Literal["float32", "float16", "int8"] = "float32",
        calibration: Sequence[ImageSource] = (),
    ) -> Path:
        """Write one ONNX file for images of any size; see `sppnet.export.export_estimator`.

        Raises:
            UserError: not fitted, or an argument at fault.
        """
        from sppnet.export import export_estimator

        return export_estimator(self, path, part=part, precision=precision, calibration=calibration)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Self:
        """Read a run folder that `save` wrote.

        Raises:
            UserError: no run of a detector of this version, or a damaged one.
        """
        run = load_run(Path(folder), "detector")
        ours = from_config(cls, run.config, run.folder / "config.toml")
        ours.device = device
        model, tensors = cast("dict[str, Any]", run.model), run.tensors
        ours.backbone_ = restore_backbone(model["backbone"], tensors, run.folder)
        ours.network_ = prepare(ours.backbone_, pick_device(device))
        try:
            count = len(model["layers"])
            means, bases = (
                tuple(tensors[f"projection.{i}.{part}"] for i in range(count)) for part in ("mean", "basis")
            )
            iou_head = None
            if "iou_head.first.weight" in tensors:
                iou_head = MLP(
                    *(
                        LinearModel(tensors[f"iou_head.{part}.weight"], tensors[f"iou_head.{part}.bias"])
                        for part in ("first", "second")
                    )
                )
            regressors = Regressors(
                Projection(tuple(model["layers"]), means, bases),
                LinearModel(tensors["regressors.weight"], tensors["regressors.bias"]),
                iou_head,
            )
            ours.names_ = tuple(model["names"])
            svm = LinearModel(tensors["svm.weight"], tensors["svm.bias"])
            ours.heads_ = Heads(ours.names_, svm, regressors, tensors["calibration"])
            ours.shapes_ = tensors["shapes"]
            ours.summary_ = dict(model["summary"])
        except KeyError as error:
            raise UserError(run.folder, "a whole run", f"one without {error}", "Fit again.") from error
        ours.proposals_ = None if ours.options.proposals is None else read_proposals(ours.options.proposals)
        return ours

    def _check_fitted(self) -> None:
        if not hasattr(self, "heads_"):
            raise UserError("Detector", "a fitted detector", "one that is not", "Call fit or load first.")

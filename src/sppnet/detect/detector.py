"""The detector: fit, predict, evaluate, save, load."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from sppnet.backbones import LayerInfo, load_backbone, prepare
from sppnet.data import Division, ImageSource, detection_to_fit, detection_to_measure, read_image
from sppnet.detect.fitting import fit_heads, learn_shapes, maps_of, read_for, windows_of
from sppnet.detect.learnable import learnable, left_out
from sppnet.detect.options import DetectorOptions
from sppnet.detect.postprocess import Heads, class_agnostic_nms, detect
from sppnet.detect.regression import BINS, CHANNELS, Projection, Regressors
from sppnet.detect.result import DetectionResult
from sppnet.detect.tiles import Tiling, detect_in_tiles, tiled_set
from sppnet.errors import UserError
from sppnet.estimators import Estimator, SavedState, TensorSpec, fresh_fit
from sppnet.estimators.tensors import check_window_shapes
from sppnet.evaluate import detection_metrics
from sppnet.features.network import backbone_tensors, pick_device
from sppnet.learn import MLP, LinearModel
from sppnet.progress import Stopwatch, peak_memory_mb, track
from sppnet.proposals import read_proposals
from sppnet.structures import Detections, DetectionSet, ImageSize


@dataclass(init=False)
class Detector(Estimator[DetectionResult]):
    """Finds objects: a frozen backbone's maps, pooled windows, one SVM and one box regressor a class.

    The pipeline of the paper's section 3, with dense windows or boxes from a file as proposals. As in
    scikit-learn, the constructor stores its arguments, `fit` learns what ends in ``_`` and returns self.

    Attributes:
        backbone: ``builtin``, ``torchvision:NAME`` or ``timm:NAME``.
        weights: local weights of the backbone, a safetensors file; nothing is downloaded then.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        options: how windows are made, pooled, scored and merged; single options can be given by their names.

    Examples:
        >>> detector = Detector(seed=1, nms=0.5)
        >>> detector == Detector(seed=1, options=DetectorOptions(nms=0.5))
        True
    """

    kind: ClassVar[str] = "detector"
    supports_boxes: ClassVar[bool] = True

    backbone: str = "builtin"
    weights: Path | str | None = None
    device: str = "auto"
    seed: int = 0
    val_share: float | None = None
    options: DetectorOptions = field(default_factory=DetectorOptions)

    def __init__(
        self,
        backbone: str = "builtin",
        weights: Path | str | None = None,
        device: str = "auto",
        seed: int = 0,
        val_share: float | None = None,
        options: DetectorOptions | None = None,
        **single: Any,
    ) -> None:
        values = {"backbone": backbone, "weights": weights, "device": device, "seed": seed}
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
            layout: the data set's layout, where looking is not enough.
            skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
            quiet: no progress bars.

        Returns:
            self, with ``names_``, ``summary_`` (seconds by stage, counts, notes, peak memory), ``fitted_on_``
            (digests of the images fitted on and held out) and the heads.

        Raises:
            UserError: data, weights or options at fault.
        """
        watch = Stopwatch()
        division = Division(self.val_share, self.seed)
        declared, record = detection_to_fit(data, split, layout, division, skip_bad=skip_bad)
        dataset = learnable(declared)
        weights = None if self.weights is None else Path(self.weights)
        self.backbone_ = load_backbone(self.backbone, weights, seed=self.seed)
        self.network_ = prepare(self.backbone_, pick_device(self.device))
        self.proposals_ = None if self.options.proposals is None else read_proposals(self.options.proposals)
        watch("setup")
        with self._tiled(dataset, quiet=quiet) as tiles:
            self.shapes_ = learn_shapes(tiles, self.options.shapes)
            self.heads_, facts, notes = fit_heads(
                self.network_,
                tiles,
                self.shapes_,
                self.options,
                self.proposals_,
                self.seed,
                watch,
                quiet=quiet,
            )
        self.names_ = dataset.names
        self.fitted_on_ = record
        self.category_ids_: tuple[int | str, ...] = dataset.category_ids
        self.summary_: dict[str, Any] = {
            "seconds": watch.seconds(),
            **facts,
            "held_out_images": len(record.held_out),
            "classes_left_out": left_out(declared, dataset),
            "notes": [*dataset.notes, *notes],
            "peak_memory_mb": peak_memory_mb(),
        }
        return self

    def _tiled(self, dataset: DetectionSet, *, quiet: bool) -> AbstractContextManager[DetectionSet]:
        """Return the data set, or the set of its tiles."""
        if not self.options.tile:
            return nullcontext(dataset)
        return tiled_set(dataset, Tiling(self.options.tile, self.options.overlap), self.seed, quiet=quiet)

    def _predict_one(self, source: ImageSource, threshold: float | None) -> DetectionResult:
        found = self._detect(source)
        likely = found[found.scores >= (0.5 if threshold is None else threshold)]
        return DetectionResult(class_agnostic_nms(likely), source, self.category_ids_)

    def _detect(self, source: ImageSource) -> Detections:
        self._check_fitted()
        if self.options.tile:
            tiling = Tiling(self.options.tile, self.options.overlap)
            return detect_in_tiles(read_image(source), tiling, self._detect_tile, self.options.nms)
        image = read_for(self.network_, source, self.options)
        path = Path(source) if isinstance(source, (str, os.PathLike)) else None
        return self._detect_image(image.values, image.size, path)

    def _detect_tile(self, image: Tensor) -> Detections:
        return self._detect_image(image, ImageSize(image.shape[1], image.shape[2]), None)

    def _detect_image(self, image: Tensor, size: ImageSize, path: Path | None) -> Detections:
        windows = windows_of(size, self.shapes_, self.options, self.proposals_, path)
        if not len(windows):
            return Detections.empty(size, self.names_)
        maps = maps_of(self.network_, image, self.options, size)
        return detect(maps, windows, self.heads_, self.options)

    def evaluate(
        self,
        data: str | os.PathLike[str] | DetectionSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Measure on images with boxes.

        Of a data set without splits that `fit` divided, the held-out images are measured.

        Args:
            data: a data set whose classes are among the detector's, or one that was read.
            split: the part to measure on; the part for validation or test when None.
            layout: the data set's layout, where looking is not enough.
            skip_bad: leave damaged images out; otherwise they are an error that lists all of them.
            quiet: no progress bars.

        Returns:
            What `sppnet.evaluate.detection_metrics` returns: "AP50", "AP75", "AP", "per_class", ...; and
            "held_out" (whether held-out images are measured), "trained_on" (how many of the measured images
            were fitted on; None for runs without a record of them) and "notes" (one sentence each).

        Raises:
            UserError: not fitted, or data at fault.
        """
        self._check_fitted()
        dataset, facts = self.to_measure(data, split, layout=layout, skip_bad=skip_bad)
        found = [self._detect(item.path) for item in track(dataset.items, "Evaluating", quiet=quiet)]
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

    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
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
        described: dict[str, object] = {
            "category_ids": list(self.category_ids_),
            "backbone": self.backbone_.spec(),
            "layers": list(projection.layers),
        }
        return tensors, described

    def _restore(self, state: SavedState) -> None:
        self.backbone_ = state.backbone()
        layers = tuple(layer.name for layer in self.backbone_.layers)
        if state.texts("layers") != layers:
            raise UserError(state.described, f"the layers {', '.join(layers)}", "others", "Fit again.")
        tensors = state.tensors
        with_iou = "iou_head.first.weight" in tensors
        state.check(*_tensor_table(self.backbone_.layers, self.options, with_iou=with_iou))
        check_window_shapes(tensors["shapes"], state.file)
        iou_head = (
            MLP(_linear(tensors, "iou_head.first"), _linear(tensors, "iou_head.second")) if with_iou else None
        )
        means, bases = (
            tuple(tensors[f"projection.{i}.{part}"] for i in range(len(layers))) for part in ("mean", "basis")
        )
        regressors = Regressors(Projection(layers, means, bases), _linear(tensors, "regressors"), iou_head)
        self.category_ids_ = state.category_ids()
        self.heads_ = Heads(state.names, _linear(tensors, "svm"), regressors, tensors["calibration"])
        self.shapes_ = tensors["shapes"]
        self.network_ = prepare(self.backbone_, pick_device(self.device))
        given = self.options.proposals
        self.proposals_ = None if given is None else read_proposals(given)


def _linear(tensors: Mapping[str, Tensor], name: str) -> LinearModel:
    return LinearModel(tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _tensor_table(
    layers: Sequence[LayerInfo], options: DetectorOptions, *, with_iou: bool
) -> tuple[list[TensorSpec], dict[str, int]]:
    """The tensors of a run beside the backbone's: K classes, D pooled and R projected features, S shapes."""
    widths = [min(info.channels, CHANNELS) for info in layers]
    sizes = {
        "D": sum(n * n for n in options.levels) * sum(info.channels for info in layers),
        "R": sum(n * n for n in BINS) * sum(widths),
    }
    table = [
        TensorSpec("svm.weight", ("K", "D")),
        TensorSpec("svm.bias", ("K",)),
        TensorSpec("regressors.weight", ("4*K", "R")),
        TensorSpec("regressors.bias", ("4*K",)),
        TensorSpec("calibration", ("K", 2)),
        TensorSpec("shapes", ("S", 2)),
    ]
    for i, (info, width) in enumerate(zip(layers, widths, strict=True)):
        table += [
            TensorSpec(f"projection.{i}.mean", (info.channels,)),
            TensorSpec(f"projection.{i}.basis", (info.channels, width)),
        ]
    if with_iou:
        table += [
            TensorSpec("iou_head.first.weight", ("H", "R")),
            TensorSpec("iou_head.first.bias", ("H",)),
            TensorSpec("iou_head.second.weight", ("5*K", "H")),
            TensorSpec("iou_head.second.bias", ("5*K",)),
        ]
    return table, sizes

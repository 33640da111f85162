"""The fitted heads of a detector in one container, and their tensors in a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.backbones import LayerInfo
from sppnet.detect.boxes import ProjectedRegressors, Projection
from sppnet.detect.fc_head import FullyConnected
from sppnet.detect.options import DetectorOptions
from sppnet.detect.pooled_boxes import PooledRegressors
from sppnet.estimators import TensorSpec
from sppnet.learn import MLP, LinearModel


@dataclass(frozen=True)
class Heads:
    """The heads of a detector.

    Attributes:
        names: class names.
        svm: weight ``[K, D]``, bias ``[K]``, for unscaled features.
        boxes: box regressors; None for none.
        fc: fully connected layers; None if the SVMs use pooled features.
        calibration: ``[K, 2]``: slope a and offset b of the probability ``sigmoid(a * s + b)`` per class.
    """

    names: tuple[str, ...]
    svm: LinearModel
    boxes: ProjectedRegressors | PooledRegressors | None
    fc: FullyConnected | None
    calibration: Tensor

    def to(self, device: torch.device) -> Heads:
        """Return the heads with their fully connected layers on a device."""
        return self if self.fc is None else dataclasses.replace(self, fc=self.fc.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by their names in a run."""
        found = {"svm.weight": self.svm.weight, "svm.bias": self.svm.bias, "calibration": self.calibration}
        if self.boxes is not None:
            found |= _linear_tensors("regressors", self.boxes.model)
        if isinstance(self.boxes, ProjectedRegressors):
            projection, iou_head = self.boxes.projection, self.boxes.iou_head
            for i, (mean, basis) in enumerate(zip(projection.means, projection.bases, strict=True)):
                found |= {f"projection.{i}.mean": mean, f"projection.{i}.basis": basis}
            if iou_head is not None:
                found |= _linear_tensors("iou_head.first", iou_head.first)
                found |= _linear_tensors("iou_head.second", iou_head.second)
        if self.fc is not None:
            found |= {f"fc.{name}": value for name, value in self.fc.state_dict().items()}
        return found

    @staticmethod
    def of(
        names: tuple[str, ...],
        tensors: Mapping[str, Tensor],
        options: DetectorOptions,
        layers: Sequence[str],
    ) -> Heads:
        """Return the heads that `tensors` described; the tensors were checked against `tensor_table`."""
        boxes: ProjectedRegressors | PooledRegressors | None = None
        if options.box.regression == "pooled":
            boxes = PooledRegressors(_linear(tensors, "regressors"))
        elif options.box.regression == "projected":
            means, bases = (
                tuple(tensors[f"projection.{i}.{part}"] for i in range(len(layers)))
                for part in ("mean", "basis")
            )
            iou_head = None
            if "iou_head.first.weight" in tensors:
                iou_head = MLP(_linear(tensors, "iou_head.first"), _linear(tensors, "iou_head.second"))
            projection = Projection(tuple(layers), means, bases)
            boxes = ProjectedRegressors(
                projection, options.box.box_bins, _linear(tensors, "regressors"), iou_head
            )
        fc = None
        if options.fc.features != "pool":
            fc = fc_of({k.removeprefix("fc."): v for k, v in tensors.items() if k.startswith("fc.")})
        return Heads(names, _linear(tensors, "svm"), boxes, fc, tensors["calibration"])


def fc_of(state: Mapping[str, Tensor]) -> FullyConnected:
    """Return fully connected layers with given weights."""
    width, length = state["fc6.weight"].shape
    head = FullyConnected(length, (width, len(state["fc7.bias"])), len(state["fc8.bias"]) - 1)
    head.load_state_dict(dict(state))
    return head.eval().requires_grad_(False)


def tensor_table(
    layers: Sequence[LayerInfo], options: DetectorOptions, *, with_iou_head: bool
) -> tuple[list[TensorSpec], dict[str, int]]:
    """Return the tensors of a run without those of the backbone, and known sizes.

    Sizes: K classes, D pooled features, P projected features, S window shapes, V and W units of fc6 and fc7.

    Args:
        layers: layers of the backbone.
        options: options of the detector.
        with_iou_head: whether the run has an IoU head; a fit without suitable boxes has none.
    """
    widths = [min(info.channels, options.box.box_channels) for info in layers]
    sizes = {
        "D": sum(n * n for n in options.pool.levels) * sum(info.channels for info in layers),
        "P": sum(n * n for n in options.box.box_bins) * sum(widths),
    }
    table = [
        TensorSpec("shapes", ("S", 2)),
        TensorSpec("calibration", ("K", 2)),
        TensorSpec("svm.bias", ("K",)),
        TensorSpec("svm.weight", ("K", {"pool": "D", "fc6": "V", "fc7": "W"}[options.fc.features])),
    ]
    if options.box.regression != "none":
        length = "P" if options.box.regression == "projected" else "D"
        table += [TensorSpec("regressors.weight", ("4*K", length)), TensorSpec("regressors.bias", ("4*K",))]
    if options.box.regression == "projected":
        for i, (info, width) in enumerate(zip(layers, widths, strict=True)):
            table += [
                TensorSpec(f"projection.{i}.mean", (info.channels,)),
                TensorSpec(f"projection.{i}.basis", (info.channels, width)),
            ]
    if with_iou_head:
        table += [
            TensorSpec("iou_head.first.weight", ("H", "P")),
            TensorSpec("iou_head.first.bias", ("H",)),
            TensorSpec("iou_head.second.weight", ("5*K", "H")),
            TensorSpec("iou_head.second.bias", ("5*K",)),
        ]
    if options.fc.features != "pool":
        table += [
            TensorSpec("fc.scale", ()),
            TensorSpec("fc.fc6.weight", ("V", "D")),
            TensorSpec("fc.fc6.bias", ("V",)),
            TensorSpec("fc.fc7.weight", ("W", "V")),
            TensorSpec("fc.fc7.bias", ("W",)),
            TensorSpec("fc.fc8.weight", ("K+1", "W")),
            TensorSpec("fc.fc8.bias", ("K+1",)),
        ]
    return table, sizes


def _linear_tensors(name: str, model: LinearModel) -> dict[str, Tensor]:
    return {f"{name}.weight": model.weight, f"{name}.bias": model.bias}


def _linear(tensors: Mapping[str, Tensor], name: str) -> LinearModel:
    return LinearModel(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

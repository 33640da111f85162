"""Compare the accuracy of an exported model and its estimator on the same labelled images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import torch

from sppnet.data import (
    classification_for,
    default_split,
    detection_for,
    read_classification,
    read_detection,
    read_pixels,
)
from sppnet.errors import UserError
from sppnet.evaluate import classification_metrics, detection_metrics
from sppnet.export.models import FORMAT
from sppnet.files import write_bytes
from sppnet.structures import Boxes, Detections, ImageSize

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_SHOWN = ("AP50", "AP75", "AP", "accuracy", "mean_class_accuracy", "top5")


def evaluate_export(
    estimator: object,
    path: str | os.PathLike[str],
    data: str | os.PathLike[str],
    split: str | None = None,
) -> dict[str, tuple[float, float]]:
    """Evaluate an exported model and its estimator, and record both results in the metadata of the file.

    Args:
        estimator: the exported estimator.
        path: the exported model; its metadata get an entry ``accuracy``.
        data: labelled images.
        split: the split to evaluate on; the validation or test split when None.

    Returns:
        The values of the estimator and of the file, for each common metric.

    Raises:
        UserError: the file is not an exported detector or classifier, or the data are invalid.

    Examples:
        >>> from sppnet import Classifier
        >>> evaluate_export(Classifier(), "model.onnx", "data")
        Traceback (most recent call last):
        sppnet.errors.UserError: model.onnx: expected an exported model, got no such file
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(file, "an exported model", "no such file")
    model = onnx.load(file)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if metadata.get("sppnet.format") != FORMAT or metadata["kind"] not in ("detector", "classifier"):
        raise UserError(
            file,
            "a detector or a classifier that sppnet exported",
            f"a file of kind {metadata.get('kind', 'unknown')}",
        )
    split_name = default_split(data, "evaluate", None) if split is None else split
    exported = _evaluate(file, metadata, data, split_name, estimator)
    original = cast("Any", estimator).evaluate(data, split_name, quiet=True)
    measured = {
        name: (float(original[name]), float(exported[name]))
        for name in _SHOWN
        if original.get(name) is not None and exported.get(name) is not None
    }
    metadata["accuracy"] = json.dumps({name: {"run": a, "export": b} for name, (a, b) in measured.items()})
    onnx.helper.set_model_props(model, metadata)
    write_bytes(file, model.SerializeToString())
    return measured


def _evaluate(
    file: Path, metadata: Mapping[str, str], data: str | os.PathLike[str], split: str, estimator: object
) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = tuple(json.loads(metadata["names"]))
    if metadata["kind"] == "detector":
        dataset = detection_for(read_detection(data, split), names)
        propose = cast("Any", estimator).proposals if "proposals" in metadata else None
        found = [_detections(session, item.path, names, propose) for item in dataset.items]
        return dict(detection_metrics(found, [item.truth for item in dataset.items]))
    images = classification_for(read_classification(data, split), names)
    scores = [_run(session, ["scores"], item.path)[0] for item in images.items]
    labels = torch.tensor([item.label for item in images.items])
    return dict(classification_metrics(torch.from_numpy(np.stack(scores)), labels, names))


def _detections(
    session: InferenceSession,
    path: Path,
    names: tuple[str, ...],
    propose: Callable[[Path], Boxes] | None,
) -> Detections:
    pixels = read_pixels(path)
    given = {} if propose is None else {"proposals": propose(path).xyxy.numpy()}
    boxes, scores, labels = _run(session, ["all_boxes", "all_scores", "all_labels"], path, given)
    size = ImageSize(pixels.shape[0], pixels.shape[1])
    return Detections(
        Boxes(torch.from_numpy(boxes), size), torch.from_numpy(scores), torch.from_numpy(labels), names
    )


def _run(
    session: InferenceSession, outputs: list[str], path: Path, given: Mapping[str, Any] | None = None
) -> list[Any]:
    return cast("list[Any]", session.run(outputs, {"image": read_pixels(path), **(given or {})}))

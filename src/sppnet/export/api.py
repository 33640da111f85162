"""Export fitted estimators and feature extractors to files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import onnx
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.data import ImageSource, read_image
from sppnet.errors import UserError
from sppnet.export.models import box_feature_model, feature_model, whole_model
from sppnet.export.network import Precision, export_network
from sppnet.export.parts import FeatureParts
from sppnet.export.reading import estimator_parts
from sppnet.export.targets import ExportOptions, check_target, write_export
from sppnet.features import resize, resized_size
from sppnet.structures import ImageSize

Part: TypeAlias = Literal["all", "features", "box-features"]
PARTS: tuple[Part, ...] = ("all", "features", "box-features")


def export_estimator(
    estimator: object,
    path: str | os.PathLike[str],
    *,
    part: Part = "all",
    precision: Precision = "float32",
    calibration: Sequence[ImageSource] = (),
) -> Path:
    """Write a fitted estimator as one ONNX file for images of any size.

    Args:
        estimator: a fitted `sppnet.Detector`, `sppnet.Classifier` or `sppnet.NetworkClassifier`.
        path: the file, ending in ``.onnx``.
        part: ``all`` for the whole estimator, ``features`` for the features of the image, or
            ``box-features`` for those of given boxes.
        precision: precision of the network: ``float32``, ``float16`` or ``int8``. The rest of the model is
            computed in float32.
        calibration: images for the ranges of ``int8``, such as 100 training images.

    Returns:
        The path.

    Raises:
        UserError: the estimator is not fitted or cannot be exported, an argument is invalid, or the path is
            a file that sppnet did not export.
        MissingExtraError: a package of the extra ``export`` is not installed.

    Examples:
        >>> from sppnet import Detector
        >>> export_estimator(Detector(), "model.txt")
        Traceback (most recent call last):
        sppnet.errors.UserError: model.txt: expected a file that ends in .onnx, got .txt
    """
    target = _target(path)
    parts = estimator_parts(estimator)
    if part not in PARTS:
        raise UserError("part", ", ".join(PARTS), repr(part))
    features = parts.features
    if part != "all" and not features.levels:
        raise UserError("part", "a network with pyramid pooling, for features", f"part {part!r} without")
    network = export_network(features.backbone, precision, _network_images(features, calibration))
    if part == "features":
        model = feature_model(features, network)
    elif part == "box-features":
        model = box_feature_model(features, network)
    else:
        model = whole_model(parts, network)
    return _write(model, target, precision)


def onnx_target(estimator: object, path: Path, options: ExportOptions) -> Path:
    """Write an ONNX file; see `sppnet.export.targets.Target`."""
    return export_estimator(
        estimator,
        path,
        part=options.part,
        precision=options.precision,
        calibration=options.calibration,
    )


def export_features(
    backbone: Backbone,
    path: str | os.PathLike[str],
    levels: Sequence[int] = (6, 3, 2, 1),
    *,
    mode: Literal["max", "mean"] = "max",
    scales: Sequence[int] | None = None,
    boxes: bool = False,
) -> Path:
    """Write a feature extractor in float32, for the pyramid features of the image or of given boxes.

    Args:
        backbone: a backbone from `sppnet.backbones.load_backbone`.
        path: the file, ending in ``.onnx``.
        levels: bins along each side of each level.
        mode: ``max`` or ``mean``.
        scales: short sides to which images are resized; None keeps their own size.
        boxes: add an input of boxes ``[N, 4]``; each is pooled at the scale that suits it (section 4.1).

    Returns:
        The path.

    Raises:
        UserError: the path has another extension.
        MissingExtraError: a package of the extra ``export`` is not installed.

    Examples:
        >>> from sppnet.backbones import load_backbone
        >>> export_features(load_backbone("builtin"), "features.txt")
        Traceback (most recent call last):
        sppnet.errors.UserError: features.txt: expected a file that ends in .onnx, got .txt
    """
    target = _target(path)
    parts = FeatureParts(backbone, tuple(sorted(set(scales or (0,)))), None, tuple(levels), mode)
    network = export_network(backbone)
    model = box_feature_model(parts, network) if boxes else feature_model(parts, network)
    return _write(model, target, "float32")


def _target(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    check_target(target, ".onnx")
    return target


def _network_images(parts: FeatureParts, sources: Sequence[ImageSource]) -> Iterator[Tensor]:
    """Yield the inputs of the network for images, at every scale."""
    backbone = parts.backbone.cpu()
    for source in sources:
        image = read_image(source)[None]
        size = ImageSize(image.shape[2], image.shape[3])
        for scale in parts.scales:
            resized = resized_size(size, scale or None, backbone, parts.long_side)
            pixels = resize(image, resized, antialias=parts.antialias)
            yield (pixels - backbone.mean) / backbone.std


def _write(model: onnx.ModelProto, target: Path, precision: Precision) -> Path:
    entry = model.metadata_props.add()
    entry.key, entry.value = "precision", precision
    return write_export(target, model.SerializeToString())

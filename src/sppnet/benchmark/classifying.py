"""Accuracy and time of image classification by view (crop, warp, full) and by pyramid levels."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from sppnet.backbones import Backbone, load_backbone, prepare
from sppnet.classify import Classifier, ClassifierOptions
from sppnet.data import default_split, read_classification, read_image
from sppnet.evaluate import classification_metrics
from sppnet.features import extract, image_rows
from sppnet.learn import SvmOptions, fit_linear_svm, one_versus_rest
from sppnet.progress import track
from sppnet.structures import ClassificationSet

_SIDE = 224
_LEVELS = (6, 3, 2, 1)
_C = 10.0


def _view(image: Tensor, view: str) -> Tensor:
    """Return the centre crop at a short side of 224, the image warped to 224x224, or the image itself."""
    if view == "full":
        return image
    if view == "warp":
        return _resized(image, _SIDE, _SIDE)
    height, width = image.shape[1:]
    short = min(height, width)
    larger = _resized(image, round(height * _SIDE / short), round(width * _SIDE / short))
    top, left = (larger.shape[1] - _SIDE) // 2, (larger.shape[2] - _SIDE) // 2
    return larger[:, top : top + _SIDE, left : left + _SIDE]


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    resized = interpolate(image[None], (height, width), mode="bilinear", antialias=True)
    return resized[0].clamp(0, 1)


def _features(network: Backbone, data: ClassificationSet, view: str, quiet: bool) -> Tensor:
    """Compute the features of all images, float32 ``[N, D]``, in the order of the pyramid levels."""
    rows = [
        image_rows(extract(network, _view(read_image(item.path), view), None), _LEVELS, normalise=True)[0]
        for item in track(data.items, f"{data.split}: {view}", quiet=quiet)
    ]
    return torch.stack(rows)


def views_and_pyramids(
    data: Path, backbone: str, weights: Path | None, *, quiet: bool
) -> list[dict[str, object]]:
    """Measure accuracies and seconds of `Classifier` in two settings, and of each view and pyramid.

    Args:
        data: a classification data set.
        backbone: name of the network.
        weights: file of its weights, if any.
        quiet: whether to hide progress bars.

    Returns:
        One mapping per setting: "setting", "fit_s", "mean_class_accuracy", "accuracy" and "top5".
    """
    results: list[dict[str, object]] = []
    for setting, options in (
        ("Classifier.fit, default options", ClassifierOptions()),
        ("Classifier.fit, size of the image only", ClassifierOptions(scales=None)),
    ):
        start = time.perf_counter()
        classifier = Classifier(backbone, weights, options=options).fit(data, quiet=quiet)
        seconds = time.perf_counter() - start
        results.append(_result(setting, seconds, classifier.evaluate(data, quiet=quiet)))
        del classifier  # frees its features
    network = prepare(load_backbone(backbone, weights), torch.device("cpu"))
    train = read_classification(data, None, None)
    test = read_classification(data, default_split(data, "evaluate", None), None)
    labels, test_labels = (torch.tensor([item.label for item in split.items]) for split in (train, test))
    first = sum(layer.channels for layer in network.layers) * _LEVELS[0] ** 2
    for view in ("crop", "warp", "full"):
        start = time.perf_counter()
        features = _features(network, train, view, quiet)
        extraction = time.perf_counter() - start
        test_features = _features(network, test, view, quiet)
        for name, length in (("6x6", first), ("6,3,2,1", features.shape[1])):
            start = time.perf_counter()
            targets = one_versus_rest(labels, len(train.names))
            svm = fit_linear_svm(normalize(features[:, :length]), targets, SvmOptions(C=_C))
            scores = svm.scores(normalize(test_features[:, :length]))
            metrics = classification_metrics(scores, test_labels, train.names)
            results.append(_result(f"{view}, {name}", extraction + time.perf_counter() - start, metrics))
    return results


def _result(setting: str, seconds: float, metrics: Mapping[str, object]) -> dict[str, object]:
    accuracies = {key: metrics[key] for key in ("mean_class_accuracy", "accuracy", "top5")}
    return {"setting": setting, "fit_s": seconds, **accuracies}

"""Whole images classified: crop, warp and full view, one level and several, in one run."""

from __future__ import annotations

import time
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
    """The centre of the image at a short side of 224; the whole of it warped to 224x224; or itself."""
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


def _rows(network: Backbone, data: ClassificationSet, view: str, quiet: bool) -> Tensor:
    """float32 ``[N, D]``: the rows of all levels; those of the first come first."""
    rows = [
        image_rows(extract(network, _view(read_image(item.path), view), None), _LEVELS, normalise=True)[0]
        for item in track(data.items, f"{data.split}: {view}", quiet=quiet)
    ]
    return torch.stack(rows)


def views_and_pyramids(
    data: Path, backbone: str, weights: Path | None, *, quiet: bool
) -> list[dict[str, object]]:
    """Mean class accuracy and seconds: our classifier in two settings, then each view and pyramid."""
    found: list[dict[str, object]] = []
    for said, options in (
        ("Classifier.fit as it is", ClassifierOptions()),
        ("Classifier.fit, the own size alone", ClassifierOptions(scales=None)),
    ):
        start = time.perf_counter()
        ours = Classifier(backbone, weights, options=options).fit(data, quiet=quiet)
        seconds = time.perf_counter() - start
        figures = ours.evaluate(data, quiet=quiet)
        found.append(
            {
                "setting": said,
                "fit_s": seconds,
                **{k: figures[k] for k in ("mean_class_accuracy", "accuracy", "top5")},
            }
        )
        del ours
    network = prepare(load_backbone(backbone, weights), torch.device("cpu"))
    train = read_classification(data, None, None)
    test = read_classification(data, default_split(data, "evaluate", None), None)
    labels, wanted = (torch.tensor([item.label for item in part.items]) for part in (train, test))
    first = sum(layer.channels for layer in network.layers) * _LEVELS[0] ** 2
    for view in ("crop", "warp", "full"):
        start = time.perf_counter()
        rows = _rows(network, train, view, quiet)
        took = time.perf_counter() - start
        others = _rows(network, test, view, quiet)
        for name, length in (("6x6", first), ("6,3,2,1", rows.shape[1])):
            start = time.perf_counter()
            targets = one_versus_rest(labels, len(train.names))
            svm = fit_linear_svm(normalize(rows[:, :length]), targets, SvmOptions(C=_C))
            scores = svm.scores(normalize(others[:, :length]))
            figures = classification_metrics(scores, wanted, train.names)
            found.append(
                {
                    "setting": f"{view}, {name}",
                    "fit_s": took + time.perf_counter() - start,
                    **{k: figures[k] for k in ("mean_class_accuracy", "accuracy", "top5")},
                }
            )
    return found

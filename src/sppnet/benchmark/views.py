"""Accuracy of views on feature maps and of views by crops, with one pretrained network."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from sppnet.backbones import load_backbone, prepare
from sppnet.classify import NetworkOptions, ViewOptions
from sppnet.classify.network import PyramidNetwork
from sppnet.classify.transfer import see
from sppnet.classify.views import view_probabilities
from sppnet.data import default_split, read_classification, read_image
from sppnet.features.network import pick_device
from sppnet.learn import SvmOptions, fit_linear_svm, one_versus_rest
from sppnet.progress import track
from sppnet.structures import ClassificationItem, ClassificationSet

_SHORT, _SIDE = 256, 224
_C = 10.0


def views_accuracy(
    data: Path, backbone: str, weights: Path | None, *, quick: bool = False, quiet: bool = False
) -> dict[str, object]:
    """Classify ten views of each test image, by crops and on maps.

    The linear layer after the pyramid consists of SVMs fitted to centre crops of the training images. The
    convolutions are frozen.

    Args:
        data: a classification data set with training and evaluation splits.
        backbone: name of the network.
        weights: file of its weights, if any.
        quick: use a tenth of the images.
        quiet: whether to hide progress bars.

    Returns:
        Errors in percent (``"top1_crops"``, ``"top1_maps"``, ``"top5_crops"``, ``"top5_maps"``), the number
        of images that only one method classifies correctly (``"only_crops"``, ``"only_maps"``),
        ``"images"``, and seconds per image (``"crops_s"``, ``"maps_s"``).

    Raises:
        UserError: the data, network or weights are invalid.
    """
    step = 10 if quick else 1
    train = read_classification(data, None)
    test = read_classification(data, default_split(data, "evaluate"))
    network = _network(train, train.items[::step], backbone, weights, quiet=quiet)
    crops = ViewOptions((_SHORT,), _SIDE, "five")
    methods = {"crops": crops, "maps": ViewOptions((_SHORT,), _SIDE, "five", how="maps")}
    scores: dict[str, list[Tensor]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    items = test.items[::step]
    for item in track(items, "Testing", quiet=quiet):
        image = read_image(item.path)
        for name, options in methods.items():
            start = time.perf_counter()
            scores[name].append(view_probabilities(network, image, options))
            seconds[name] += time.perf_counter() - start
    labels = torch.tensor([item.label for item in items])
    correct: dict[str, Tensor] = {}
    result: dict[str, object] = {"network": backbone, "images": len(items)}
    for name, per_image in scores.items():
        best = torch.stack(per_image).topk(min(5, len(train.names)), 1).indices == labels[:, None]
        correct[name] = best[:, 0]
        result[f"top1_{name}"] = 100 * (1 - float(best[:, 0].float().mean()))
        result[f"top5_{name}"] = 100 * (1 - float(best.any(1).float().mean()))
        result[f"{name}_s"] = seconds[name] / len(items)
    result["only_crops"] = int((correct["crops"] & ~correct["maps"]).sum())
    result["only_maps"] = int((correct["maps"] & ~correct["crops"]).sum())
    return result


def _network(
    train: ClassificationSet,
    items: tuple[ClassificationItem, ...],
    backbone: str,
    weights: Path | None,
    *,
    quiet: bool,
) -> PyramidNetwork:
    """Create a network of convolutions, pyramid pooling and one linear layer fitted to centre crops."""
    convolutions = prepare(load_backbone(backbone, weights), pick_device("cpu"))
    network = PyramidNetwork(convolutions, len(train.names), NetworkOptions(hidden=())).eval()
    rows: list[Tensor] = []
    with torch.inference_mode():
        for item in track(items, "Centre crops", quiet=quiet):
            crop = see(read_image(item.path), "crop", _SIDE, convolutions)
            rows.append(network.features(crop)[0].float())
    table = torch.stack(rows)
    scale = 1 / float(table.norm(dim=1).mean())
    targets = one_versus_rest(torch.tensor([item.label for item in items]), len(train.names))
    svm = fit_linear_svm(table * scale, targets, SvmOptions(C=_C))
    layer = network.head[0]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(svm.weight * scale)
        layer.bias.copy_(svm.bias)
    return network

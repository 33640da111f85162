"""Tables 6 and 7: SVMs on features of pretrained networks (He et al. 2015, sections 3.2 and 3.3)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from sppnet.backbones import Backbone, load_backbone, prepare
from sppnet.backbones.paper_nets import is_paper_net
from sppnet.backbones.weights import run_backbone, weights_file
from sppnet.classify import NetworkClassifier
from sppnet.classify.network import PyramidNetwork
from sppnet.classify.transfer import (
    Feature,
    Sight,
    image_rows,
    in_own_basis,
    random_split,
    see,
    svm_accuracy,
    svm_scores,
)
from sppnet.data import read_caltech101, read_image, read_voc_labels
from sppnet.evaluate import precision_recall
from sppnet.features.network import pick_device
from sppnet.ops.pyramid import LEVELS
from sppnet.paper.plot import plot_rows
from sppnet.paper.tables import (
    PAPER_MEAN,
    Request,
    Row,
    Source,
    Table,
    row_note,
    subtracts_paper_mean,
)
from sppnet.progress import track

_COST = 10.0
_VOC, _VOC_TRAINVAL = "VOC 2007", 5011
_CALTECH, _CALTECH_IMAGES = "Caltech101", 9144
_SIDE = 224
_TRAIN, _TEST, _SPLITS = 30, 50, 10

_Values: TypeAlias = Mapping[str, Mapping[str, float]]
# Percent, by view and feature: columns of ZF-5 with SPP, of ZF-5 without SPP, and of Overfeat-7.
_TABLE7_ZF = {
    "crop": {"conv4": 81.03, "conv5": 83.76, "6x6": 87.60, "SPP": 89.47, "fc6": 88.54, "fc7": 86.10},
    "full": {"6x6": 89.46, "SPP": 91.44, "fc6": 89.50, "fc7": 87.08},
    "warp": {"SPP": 89.91},
}
_TABLE7_PLAIN = {
    "crop": {"conv4": 80.12, "conv5": 84.40, "6x6": 87.98, "fc6": 87.86, "fc7": 85.30},
}
_TABLE7_OVERFEAT = {"full": {"6x6": 91.46, "SPP": 93.42, "fc6": 91.83, "fc7": 90.00}}
_TABLE6_ZF = {
    "crop 224": {"conv4": 57.28, "conv5": 65.43, "6x6": 68.76, "fc6": 75.55, "fc7": 76.45},
    "full 224": {"6x6": 70.82, "fc6": 77.32, "fc7": 78.39},
    "full 392": {"6x6": 71.67, "fc6": 78.78, "fc7": 80.10},
}
_TABLE6_PLAIN = {"crop 224": {"conv4": 59.96, "conv5": 66.34, "6x6": 69.14, "fc6": 74.86, "fc7": 75.90}}
_TABLE6_OVERFEAT = {"full 364": {"6x6": 76.09, "fc6": 81.58, "fc7": 82.44}}


@dataclass(frozen=True)
class Pretrained:
    """A pretrained network and its features.

    Attributes:
        network: a network with fully connected layers, or its convolutions only.
        features: features of its maps and of its fully connected layers.
        plain: whether it has no pyramid pooling and accepts crops of one size only.
        overfeat: whether it is compared with the Overfeat columns instead of the ZF-5 columns.
        paper: whether the paper has values for it.
        name: a name as for ``--backbone``.
        differs: differences from the paper, for the table.
    """

    network: Backbone | PyramidNetwork
    features: tuple[Feature, ...]
    plain: bool
    overfeat: bool
    paper: bool
    name: str
    differs: str

    @property
    def theirs(self) -> str:
        """The network of the paper that it is compared with."""
        return "overfeat7" if self.overfeat else "zf5"

    def values(self, zf: _Values, plain: _Values, overfeat: _Values) -> _Values:
        """Select the values of the paper for the network; none if the paper has no values for it."""
        if not self.paper:
            return {}
        return plain if self.plain else overfeat if self.overfeat else zf


def pretrained(request: Request) -> Pretrained:
    """Load the network of a request: a run of ``sppnet train classify`` or any backbone.

    From images for the networks of the paper, 128 is subtracted (appendix A).

    Raises:
        UserError: the network or the weights are invalid.
    """
    device = pick_device(request.device)
    weights = request.weights
    name = request.backbone.partition("/")[0]
    if weights is not None and run_backbone(weights) is not None:
        weights = weights_file(weights).parent
        whole = NetworkClassifier.load(weights, request.device)
        name = whole.backbone.partition("/")[0]
        _add_layer(whole, weights)
        fc = tuple(Feature(f"fc{6 + i}", f"fc{6 + i}") for i in range(len(whole.network.hidden)))
        maps = whole.network_.backbone.layers
        whole_maps = tuple(Feature(info.name, info.name) for info in maps) if is_paper_net(name) else ()
        features = (*whole_maps, *_map_features(maps[-1].name), *fc)
        differs = f"network: {whole.backbone}, trained here for {whole.summary_['epochs']} epochs"
        plain = not whole.network_.any_size
        compared = name in ("zf5", "overfeat7")
        differs += _subtract_paper_mean(whole.network_.backbone, whole.backbone)
        return Pretrained(
            whole.network_, features, plain, name.startswith("overfeat"), compared, whole.backbone, differs
        )
    loaded = load_backbone(request.backbone, weights, seed=request.seed)
    mean = _subtract_paper_mean(loaded, request.backbone)
    backbone = prepare(loaded, device)
    last = backbone.layers[-1].name
    differs = f"network: {request.backbone}, its layer {last}{mean}"
    if weights is None and name.startswith(("zf5", "convnet5", "overfeat")):
        differs += ", with random weights: pass those of a run with --weights"
    features, overfeat = _map_features(last), name.startswith("overfeat")
    return Pretrained(
        backbone, features, False, overfeat, name in ("zf5", "overfeat7"), request.backbone, differs
    )


def _subtract_paper_mean(backbone: Backbone, name: str) -> str:
    """Set the mean of networks of the paper to 128; return the remark on the mean."""
    if not subtracts_paper_mean(name):
        return ", images less its own mean"
    backbone.mean.fill_(PAPER_MEAN / 255)
    return f", images less {PAPER_MEAN:g}"


def _add_layer(whole: NetworkClassifier, run: Path) -> None:
    """Set the convolutions of a network of the paper to return the map before the last too."""
    backbone = whole.network_.backbone
    if not is_paper_net(whole.backbone):
        return
    last = int(backbone.layers[-1].name.removeprefix("conv"))
    layers = (f"conv{last - 1}", f"conv{last}")
    both = load_backbone(whole.backbone, run / "model.safetensors", layers).to(backbone.device)
    both.mean.copy_(backbone.mean)
    both.std.copy_(backbone.std)
    whole.network_.backbone = both


def _map_features(layer: str) -> tuple[Feature, ...]:
    return (
        Feature("one bin", layer, (1,)),
        Feature("6x6", layer, (6,)),
        Feature("SPP", layer, LEVELS),
    )


def sight_features(
    source: Pretrained, images: Sequence[Path], sight: Sight, side: int, *, quiet: bool
) -> dict[str, Tensor]:
    """Compute the features of all images, by name: float32 ``[N, D]``, each feature vector of norm 1.

    Each matrix is allocated with the first image, so that features are stored once.
    """
    # Maps without pooling have a fixed length for crops only.
    selected = [f for f in source.features if f.levels or f.layer.startswith("fc") or sight == "crop"]
    if source.plain:
        selected = [f for f in selected if f.name not in ("one bin", "SPP")]
    network = source.network
    backbone = network.backbone if isinstance(network, PyramidNetwork) else network
    found: dict[str, Tensor] = {}
    for number, path in enumerate(track(images, f"{sight} {side}", quiet=quiet)):
        image = see(read_image(path), sight, side, backbone)
        for name, row in image_rows(network, image, selected).items():
            if name not in found:
                found[name] = torch.empty(len(images), len(row))
            found[name][number] = row
    return found


def table7(request: Request) -> Table:
    """Measure mean class accuracy on Caltech101 over 10 random splits (section 3.3).

    A split has 30 training and up to 50 test images per class. Other class folders are accepted; their
    splits are merged first.

    Raises:
        UserError: the data or the network are invalid; the hint states the source of missing data.
    """
    dataset = read_caltech101(request.data)
    source = pretrained(request)
    items = [item for item in dataset.items if not request.quick or item.label < 5]
    paths = [item.path for item in items]
    labels = torch.tensor([item.label for item in items])
    least = int(torch.bincount(labels).min())
    train = min(_TRAIN, least - 1)
    splits = 2 if request.quick else _SPLITS
    paper = source.values(_TABLE7_ZF, _TABLE7_PLAIN, _TABLE7_OVERFEAT)
    rows: list[Row] = []
    sights: tuple[Sight, ...] = ("crop",) if source.plain else ("crop", "full", "warp")
    for sight in sights:
        features = sight_features(source, paths, sight, _SIDE, quiet=request.quiet)
        for name in list(features):
            short = in_own_basis(features.pop(name))  # frees the features, which are longer
            draw = torch.Generator().manual_seed(request.seed)  # the same splits for all features
            pairs = [random_split(labels, train, _TEST, draw) for _ in range(splits)]
            figures = [100 * svm_accuracy(short, labels, *pair, _COST) for pair in pairs]
            known = paper.get(sight, {}).get(name)
            theirs = Source(source.theirs, _CALTECH)
            note = row_note(known, theirs, _ours(request, source, _CALTECH, len(items) == _CALTECH_IMAGES))
            mean, deviation = statistics.mean(figures), statistics.stdev(figures)
            rows.append(Row(f"{sight} {_SIDE}, {name}", known, mean, deviation, note))
    differs = (
        f"data: {request.data.name}, {len(dataset.names)} classes, {len(items)} images, merged splits; "
        f"{train} training and up to {_TEST} test images per class, {splits} random splits",
        source.differs,
        f"SVMs with C = {_COST:g} (not stated in the paper), features of norm 1",
    )
    unit = "mean class accuracy, %"
    return Table("table7", str(request.data), unit, tuple(rows), differs, plot_rows(rows, f"table7: {unit}"))


def table6(request: Request) -> Table:
    """Measure mAP of classification on VOC 2007, with SVMs fitted to trainval (section 3.2).

    Raises:
        UserError: the data or the network are invalid; the hint states the source of missing data.
    """
    train, names, shown = read_voc_labels(request.data, "trainval")
    test, _, truth = read_voc_labels(request.data, "test")
    source = pretrained(request)
    if request.quick:
        train, shown, test, truth = train[:200], shown[:200], test[:200], truth[:200]
    sights: tuple[tuple[Sight, int], ...] = (("crop", 224), ("full", 224), ("full", 392), ("full", 364))
    sights = sights[:1] if source.plain else sights
    paper = source.values(_TABLE6_ZF, _TABLE6_PLAIN, _TABLE6_OVERFEAT)
    rows: list[Row] = []
    for sight, side in sights:
        learned = sight_features(source, train, sight, side, quiet=request.quiet)
        tested = sight_features(source, test, sight, side, quiet=request.quiet)
        for name in list(learned):
            scores = svm_scores(learned.pop(name), shown.to(torch.int8), tested.pop(name), _COST)
            setting = f"{sight} {side}"
            known = paper.get(setting, {}).get(name)
            same = len(train) == _VOC_TRAINVAL
            note = row_note(known, Source(source.theirs, _VOC), _ours(request, source, _VOC, same))
            rows.append(Row(f"{setting}, {name}", known, 100 * mean_ap(scores, truth), note=note))
    differs = (
        f"data: {request.data.name}, {len(names)} classes, {len(train)} and {len(test)} images",
        source.differs,
        f"SVMs with C = {_COST:g} (not stated in the paper), features of norm 1",
    )
    return Table(
        "table6", str(request.data), "mAP, %", tuple(rows), differs, plot_rows(rows, "table6: mAP, %")
    )


def _ours(request: Request, source: Pretrained, data: str, same: bool) -> Source:
    """Return network and data of the measurement; ``data`` is the name of equal data."""
    return Source(source.name, data if same else request.data.name)


def mean_ap(scores: Tensor, truth: Tensor) -> float:
    """Compute the mAP of VOC 2007 classification; images with only difficult objects of a class are ignored.

    Args:
        scores: ``[N, K]``.
        truth: int ``[N, K]``: 1, -1, or 0 for images with only difficult objects.
    """
    values: list[float] = []
    for column, labels in zip(scores.double().T, truth.T, strict=True):
        counted = labels != 0
        relevant = (labels[counted] > 0).numpy()
        value = precision_recall(column[counted].numpy(), relevant, int(relevant.sum())).eleven_point
        if value is not None:
            values.append(value)
    return statistics.mean(values)

"""Tables 9 to 12: detection on PASCAL VOC 2007 (He et al. 2015, sections 4.2 to 4.4)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sppnet.backbones.weights import read_fc_weights
from sppnet.data import default_split, detection_for, read_detection, read_image
from sppnet.detect import Detector, DetectorOptions, FinetuneOptions, combine
from sppnet.evaluate import detection_metrics
from sppnet.paper.published import SECONDS, SPEEDUPS, TABLE9, TABLE11, TABLE12, VOC_CLASSES
from sppnet.paper.tables import PAPER_MEAN, Request, Row, Source, Table, row_note, subtracts_paper_mean
from sppnet.paper.times import FeatureTimes, feature_times
from sppnet.progress import track

FIVE_SCALES = (480, 576, 688, 864, 1200)
ONE_SCALE = (688,)
_VOC = "VOC 2007"
_ZF5, _ALEXNET = Source("zf5", _VOC), Source("AlexNet", _VOC)
_UNIT = "VOC07 mAP, %"
_SETTINGS: dict[str, dict[str, Any]] = {
    "pool5": {"features": "pool", "regression": "none"},
    "fc6": {"features": "fc6", "finetuned": False, "regression": "none"},
    "ftfc6": {"features": "fc6", "regression": "none"},
    "ftfc7": {"features": "fc7", "regression": "none"},
    "ftfc7 bb": {"features": "fc7"},
}
_RCNN_BOXES: dict[str, Any] = {"ridge": 1000.0, "above_iou": 0.6}


@dataclass(frozen=True)
class _Column:
    """One pipeline: SPP at one or five scales, or R-CNN.

    Attributes:
        title: its name in the table.
        changed: its options.
        index: the column of its values in `sppnet.paper.published`.
    """

    title: str
    changed: dict[str, Any]
    index: int


_ONE = _Column("1 scale", {"scales": ONE_SCALE}, 0)
_FIVE = _Column("5 scales", {"scales": FIVE_SCALES}, 1)


def _columns(request: Request, rcnn: int) -> list[_Column]:
    """Return SPP at one and at five scales and, if requested, R-CNN, with its values in column ``rcnn``."""
    if not request.detection.rcnn:
        return [_ONE, _FIVE]
    return [_ONE, _FIVE, _Column("R-CNN", {"pipeline": "rcnn"}, rcnn)]


def _options(request: Request, **changed: Any) -> DetectorOptions:
    """Return the paper's settings; ``quick`` has few dense windows, small scales, few batches."""
    rcnn = changed.get("pipeline") == "rcnn"
    options = DetectorOptions.paper(**changed, **(_RCNN_BOXES if rcnn else {}))
    if subtracts_paper_mean(request.backbone):
        options = options.replace(mean_pixel=PAPER_MEAN)
    levels = _pretrained_levels(request)
    if levels is not None:
        options = options.replace(levels=levels)
    if not rcnn and request.quick:
        options = options.replace(scales=tuple(side // 4 for side in options.map.scales))
    background = (0.0, 0.5) if rcnn else (0.1, 0.5)
    if request.quick:
        tune = FinetuneOptions(rates=(3e-4,), lengths=(20,), images=4, background_iou=background)
        options = options.replace(crop_side=64, crop_padding=4, width=64)
        return options.replace(source="dense", windows=32, finetune=tune)
    size = request.detection
    last = max(1, size.batches // 5)
    tune = FinetuneOptions(
        rates=(size.rate, size.rate / 10),
        lengths=(size.batches - last, last),
        background_iou=background,
        flipped=size.flipped,
    )
    return options.replace(windows=size.windows, width=size.width, finetune=tune)


def _pretrained_levels(request: Request) -> tuple[int, ...] | None:
    """Return the pyramid levels of the run that the weights are from, if any."""
    given = None if request.weights is None else read_fc_weights(request.weights, required=False)
    return None if given is None else given.levels


def _detector(request: Request, options: DetectorOptions, seed: int = 0) -> Detector:
    return Detector(
        backbone=request.backbone,
        weights=request.weights,
        device=request.device,
        seed=request.seed + seed,
        options=options,
        cache=request.out / "stages",
    )


def _fitted(request: Request, options: DetectorOptions) -> tuple[Detector, dict[str, Any]]:
    fitted = _detector(request, options).fit(request.data, quiet=request.quiet)
    return fitted, fitted.evaluate(request.data, quiet=request.quiet)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _ours(request: Request, names: Sequence[str]) -> Source:
    """Return network and data of the measurement; folder name and classes identify VOC 2007."""
    voc = list(names) == VOC_CLASSES and "2007" in request.data.resolve().name
    return Source(request.backbone, _VOC if voc else request.data.name)


def _pretrained(request: Request) -> bool:
    return request.weights is not None and read_fc_weights(request.weights, required=False) is not None


def _differs(request: Request) -> tuple[str, ...]:
    size = request.detection
    network = request.backbone + (
        f" from {request.weights}" if request.weights else ", its own or random weights"
    )
    data = f"data: {request.data.name}; network: {network}"
    start = (
        "fc6 and fc7 start at random, as nothing pretrained them; without fine-tuning they are random layers"
    )
    if _pretrained(request):
        start = f"fc6 and fc7 of {request.weights}, trained with its convolutions"
    frozen = "R-CNN fine-tunes all layers; here its convolutions stay frozen, as SPP-net's do"
    mean = (
        "images less 128" if subtracts_paper_mean(request.backbone) else "images less the network's own mean"
    )
    if request.quick:
        quick = "quick: small images, few dense windows, fc6 and fc7 64 wide where random, 20 batches"
        return data, start, mean, frozen, quick
    width = "" if _pretrained(request) else f"are {size.width} wide and "
    tuned = f"fc6 and fc7 {width}see {size.batches} batches, at a rate of {size.rate:g}, "
    tuned += f"the last fifth at a tenth of it, {'half of' if size.flipped else 'none of'} the images flipped"
    windows = f"at most {size.windows} proposals per image, of selective search"
    return data, start, mean, frozen, tuned, windows


def _setting_rows(
    request: Request, column: _Column, names: Sequence[str]
) -> tuple[list[Row], Detector | None]:
    """Return the accuracy of each setting by one column, and the last detector with fc7."""
    rows: list[Row] = []
    fitted: Detector | None = None
    for name in names:
        options = _options(request, **column.changed, **_SETTINGS[name])
        fitted, found = _fitted(request, options)
        known, source = TABLE9[name][column.index], _ALEXNET if column.index == 2 else _ZF5
        random = "fc6 at random" if name == "fc6" and not _pretrained(request) else ""
        note = row_note(known, source, _ours(request, fitted.names_), random)
        rows.append(Row(f"{name}, {column.title}", known, _percent(found["VOC07_AP50"]), note=note))
        if not request.quiet:
            print(f"{rows[-1].setting}: {rows[-1].ours:.1f}", file=sys.stderr, flush=True)
    return rows, fitted


def _time_rows(request: Request, table: str, detectors: Sequence[tuple[_Column, Detector]]) -> list[Row]:
    """Return seconds per image of each column, and R-CNN's over those of the others."""
    part = default_split(request.data, "evaluate")
    dataset = read_detection(request.data, part)
    count = 1 if request.quick else request.detection.timed
    picked = torch.randperm(len(dataset.items), generator=torch.Generator().manual_seed(request.seed))
    paths = [dataset.items[i].path for i in picked[:count].tolist()]
    images = [(path, read_image(path), detectors[0][1].proposals(path)) for path in paths]
    rows: list[Row] = []
    measured: dict[str, FeatureTimes] = {}
    for column, detector in detectors:
        measured[column.title] = times = feature_times(detector, images)
        source = _ALEXNET if column.index == 2 else _ZF5
        for name, value in (("conv", times.conv), ("fc", times.fc), ("total", times.total)):
            known = SECONDS[name][column.index]
            device = f"on {detector.network_.device.type}, {len(images)} images; the paper's on a GPU"
            note = row_note(known, source, _ours(request, detector.names_), device)
            rows.append(Row(f"{name}, {column.title}", known, value, note=note, unit="seconds per image"))
    if "R-CNN" in measured:
        for column, known in zip((_ONE, _FIVE), SPEEDUPS[table], strict=True):
            ratio = measured["R-CNN"].total / measured[column.title].total
            source = _ALEXNET if table == "table9" else _ZF5
            note = row_note(known, source, _ours(request, detectors[0][1].names_))
            rows.append(Row(f"speed-up over R-CNN, {column.title}", known, ratio, note=note, unit="times"))
    return rows


def _accuracy_and_times(request: Request, table: str, names: Sequence[str], rcnn: int) -> Table:
    rows: list[Row] = []
    detectors: list[tuple[_Column, Detector]] = []
    for column in _columns(request, rcnn):
        some, fitted = _setting_rows(request, column, names)
        rows += some
        if fitted is not None:
            detectors.append((column, fitted))
    plot = _bars(request, rows, "VOC 2007 mAP")
    rows += _time_rows(request, table, detectors)
    return Table(table, str(request.data), _UNIT, tuple(rows), _differs(request), plot)


def table9(request: Request) -> Table:
    """Measure accuracy by features and scales and seconds per image, for SPP-net and R-CNN (section 4.2).

    The R-CNN column of the paper is of AlexNet; here, R-CNN has the same network as SPP-net.
    """
    return _accuracy_and_times(request, "table9", list(_SETTINGS), 2)


def table10(request: Request) -> Table:
    """Compare SPP-net and R-CNN with the same network: fine-tuned fc7, seconds per image (section 4.3)."""
    return _accuracy_and_times(request, "table10", ["ftfc7", "ftfc7 bb"], 3)


def _class_rows(title: str, paper: str, found: dict[str, Any], ours: Source) -> list[Row]:
    """Return the values of the mean and of every class, with those of the paper for classes of VOC."""
    numbers = [float(number) for number in paper.split()]
    known = dict(zip(VOC_CLASSES, numbers, strict=True))
    mean = round(sum(numbers) / len(numbers), 1)
    note = row_note(mean, _ZF5, ours)
    rows = [Row(f"{title}, mean", mean, _percent(found["VOC07_AP50"]), note=note)]
    for name, values in found["per_class"].items():
        published = known.get(name)
        note = row_note(published, _ZF5, ours)
        rows.append(Row(f"{title}, {name}", published, _percent(values["VOC07_AP50"]), note=note))
    return rows


def table11(request: Request) -> Table:
    """Measure AP per class with fine-tuned fc7 at 5 scales, without and with box regression (section 4.2)."""
    rows: list[Row] = []
    for title, regression in (("SPP ftfc7", "none"), ("SPP ftfc7 bb", "pooled")):
        fitted, found = _fitted(request, _options(request, scales=FIVE_SCALES, regression=regression))
        rows += _class_rows(title, TABLE11[title], found, _ours(request, fitted.names_))
    plot = _bars(request, rows, "VOC 2007 AP")
    return Table("table11", str(request.data), "VOC07 AP, %", tuple(rows), _differs(request), plot)


def table12(request: Request) -> Table:
    """Combine two networks: each scores all proposals, followed by NMS of the union (section 4.4)."""
    options = _options(request, scales=FIVE_SCALES)
    both = [_detector(request, options, seed).fit(request.data, quiet=request.quiet) for seed in (0, 1)]
    split = default_split(request.data, "evaluate")
    dataset = detection_for(read_detection(request.data, split), both[0].names_)
    truths = [item.truth for item in dataset.items]
    found = [
        [detector.detect(item.path) for detector in both]
        for item in track(dataset.items, "Evaluating", quiet=request.quiet)
    ]
    several = {
        "SPP-net (1)": [one[0] for one in found],
        "SPP-net (2)": [one[1] for one in found],
        "combination": [combine(one, options) for one in found],
    }
    rows: list[Row] = []
    for title, detections in several.items():
        measured = detection_metrics(detections, truths)
        rows += _class_rows(title, TABLE12[title], measured, _ours(request, both[0].names_))
    same = "the two differ in the seed of fc6, fc7 and of the order of training; their convolutions are "
    same += "the same where the network is pretrained (the paper found no gain then)"
    plot = _bars(request, rows, "VOC 2007 AP")
    differs = (*_differs(request), same)
    return Table("table12", str(request.data), "VOC07 AP, %", tuple(rows), differs, plot)


def _bars(request: Request, rows: list[Row], label: str) -> bytes | None:
    """Plot the values of the paper and of this run by row; None without matplotlib."""
    from sppnet.draw import plot_lines
    from sppnet.errors import MissingExtraError

    x = list(range(1, len(rows) + 1))
    missing = float("nan")
    series = {
        "here": (x, [missing if row.ours is None else row.ours for row in rows]),
        "paper (VOC 2007)": (x, [missing if row.paper is None else row.paper for row in rows]),
    }
    try:
        return plot_lines(series, f"{label}, {request.data.name}", "row of the table", f"{label}, %")
    except MissingExtraError:
        return None


TABLES: dict[str, Callable[[Request], Table]] = {
    "table9": table9,
    "table10": table10,
    "table11": table11,
    "table12": table12,
}

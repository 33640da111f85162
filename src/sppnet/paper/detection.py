"""The paper's Tables 9 to 12 beside a run's figures (paper section 3.7)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sppnet.data import default_split, detection_for, read_detection
from sppnet.detect.paper import (
    BoxOptions,
    FinetuneOptions,
    PaperDetector,
    PaperOptions,
    WindowOptions,
    combine,
)
from sppnet.evaluate import detection_metrics
from sppnet.paper.tables import Request, Row, Table
from sppnet.progress import track

FIVE_SCALES = (480, 576, 688, 864, 1200)
ONE_SCALE = (688,)
_SETTINGS: dict[str, dict[str, Any]] = {
    "pool5": {"features": "pool", "boxes": BoxOptions(regress=False)},
    "fc6": {"features": "fc6", "finetuned": False, "boxes": BoxOptions(regress=False)},
    "ftfc6": {"features": "fc6", "boxes": BoxOptions(regress=False)},
    "ftfc7": {"features": "fc7", "boxes": BoxOptions(regress=False)},
    "ftfc7 bb": {"features": "fc7"},
}
TABLE9: dict[str, tuple[float | None, ...]] = {
    "pool5": (43.0, 44.9, 44.2, None),
    "fc6": (42.5, 44.8, 46.2, None),
    "ftfc6": (52.3, 53.7, 53.1, None),
    "ftfc7": (54.5, 55.2, 54.2, 55.1),
    "ftfc7 bb": (58.0, 59.2, 58.5, 59.2),
}
"""VOC 2007 mAP: SPP at 1 scale, at 5 scales, R-CNN with AlexNet, R-CNN with ZF-5."""
TABLE10 = {
    "conv": (0.053, 0.293, 14.37),
    "fc": (0.089, 0.089, 0.089),
    "total": (0.142, 0.382, 14.46),
}
"""Seconds an image with ZF-5: SPP at 1 scale, at 5 scales, R-CNN."""
_VOC_CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
TABLE11 = {
    "SPP ftfc7": (
        "65.5 65.9 51.7 38.4 32.7 62.6 68.6 69.7 33.1 66.6 53.1 58.2 63.6 68.8 50.4 27.4 53.7 48.2 61.7 64.7"
    ),
    "SPP ftfc7 bb": (
        "68.6 69.7 57.1 41.2 40.5 66.3 71.3 72.5 34.4 67.3 61.7 63.1 71.0 69.8 57.6 29.7 59.0 50.2 65.2 68.0"
    ),
}
TABLE12 = {
    "SPP-net (1)": TABLE11["SPP ftfc7 bb"],
    "SPP-net (2)": (
        "65.7 71.4 57.4 42.4 39.9 67.0 71.4 70.6 32.4 66.7 61.7 64.8 71.7 70.4 56.5 30.8 59.9 53.2 63.9 64.6"
    ),
    "combination": (
        "68.5 71.7 58.7 41.9 42.5 67.7 72.1 73.8 34.7 67.0 63.4 66.0 72.5 71.3 58.9 32.8 60.9 56.1 67.9 68.8"
    ),
}


def _options(request: Request, **changed: Any) -> PaperOptions:
    """The paper's settings; ``quick`` takes few dense windows, small scales, narrow layers, few batches."""
    options = PaperOptions(**changed)
    if options.pipeline == "spp" and request.quick:
        options = replace(options, scales=tuple(side // 4 for side in options.scales))
    if request.quick:
        tune = FinetuneOptions(width=64, rates=(3e-4,), lengths=(20,), images=4, flipped=False)
        crops = replace(options.crops, side=64, padding=4)
        dense = WindowOptions("dense", most=32)
        return replace(options, windows=dense, finetune=tune, crops=crops)
    size = request.detection
    last = max(1, size.batches // 5)
    tune = FinetuneOptions(
        width=size.width,
        rates=(size.rate, size.rate / 10),
        lengths=(size.batches - last, last),
        flipped=size.flipped,
    )
    return replace(options, windows=WindowOptions(most=size.windows), finetune=tune)


def _detector(request: Request, options: PaperOptions, seed: int = 0) -> PaperDetector:
    return PaperDetector(
        backbone=request.backbone,
        weights=request.weights,
        device=request.device,
        seed=request.seed + seed,
        options=options,
        cache=request.out / "stages",
    )


def _measured(request: Request, options: PaperOptions) -> dict[str, Any]:
    fitted = _detector(request, options).fit(request.data, quiet=request.quiet)
    return fitted.evaluate(request.data, quiet=request.quiet)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _differs(request: Request) -> tuple[str, ...]:
    size = request.detection
    network = request.backbone + ("" if request.weights else ", its own or random weights")
    data = f"data: {request.data.name}; network: {network}"
    start = (
        "fc6 and fc7 start at random, as nothing pretrained them; without fine-tuning they are random layers"
    )
    if request.quick:
        return data, start, "quick: small images, few dense windows, fc6 and fc7 64 wide, 20 batches"
    tuned = f"fc6 and fc7 are {size.width} wide and see {size.batches} batches, at a rate of {size.rate:g}, "
    tuned += f"the last fifth at a tenth of it, {'half of' if size.flipped else 'none of'} the images flipped"
    windows = f"at most {size.windows} windows an image, of selective search"
    return data, start, tuned, windows


def table9(request: Request) -> Table:
    """Accuracy by features and scales; figures are VOC 2007's 11-point mAP in percent."""
    rows: list[Row] = []
    for column, scales in enumerate((ONE_SCALE, FIVE_SCALES)):
        for name, changed in _SETTINGS.items():
            found = _measured(request, _options(request, scales=scales, **changed))
            note = "fc6 random" if name == "fc6" else ""
            title = f"{name}, {len(scales)} scale{'s' if column else ''}"
            rows.append(Row(title, TABLE9[name][column], _percent(found["VOC07_AP50"]), note=note))
            if not request.quiet:
                print(f"{title}: {rows[-1].ours:.1f}", file=sys.stderr, flush=True)
    plot = _bars(request, rows, "VOC 2007 mAP")
    return Table("table9", str(request.data), "VOC07 mAP, %", tuple(rows), _differs(request), plot)


def table10(request: Request) -> Table:
    """Accuracy of both pipelines, pooled features with box regression; times are the benchmark's."""
    rows: list[Row] = []
    for title, changed, paper in (
        ("SPP, 1 scale", {"scales": ONE_SCALE}, 58.0),
        ("SPP, 5 scales", {"scales": FIVE_SCALES}, 59.2),
        ("R-CNN", {"pipeline": "rcnn"}, 59.2),
    ):
        options = _options(request, features="pool", **changed)
        found = _measured(request, options)
        rows.append(
            Row(f"{title}, mAP", paper, _percent(found["VOC07_AP50"]), note="ours on pooled features")
        )
    times = "times are measured by sppnet benchmark detection, on an otherwise idle machine"
    paper = "; ".join(f"{part} {values}" for part, values in TABLE10.items())
    told = f"the paper's seconds an image, SPP 1 scale, 5 scales, R-CNN: {paper}"
    plot = _bars(request, rows, "VOC 2007 mAP")
    differs = (*_differs(request), times, told)
    return Table("table10", str(request.data), "VOC07 mAP, %", tuple(rows), differs, plot)


def _class_rows(title: str, paper: str, found: dict[str, Any]) -> list[Row]:
    """The mean, and every class; the paper's figures where the class is one of VOC's."""
    numbers = [float(number) for number in paper.split()]
    known = dict(zip(_VOC_CLASSES, numbers, strict=True))
    mean = round(sum(numbers) / len(numbers), 1)
    rows = [Row(f"{title}, mean", mean, _percent(found["VOC07_AP50"]))]
    for name, values in found["per_class"].items():
        rows.append(Row(f"{title}, {name}", known.get(name), _percent(values["VOC07_AP50"])))
    return rows


def table11(request: Request) -> Table:
    """AP of every class, fine-tuned fc7 at 5 scales, without and with box regression."""
    rows: list[Row] = []
    for title, boxes in (("SPP ftfc7", BoxOptions(regress=False)), ("SPP ftfc7 bb", BoxOptions())):
        found = _measured(request, _options(request, scales=FIVE_SCALES, boxes=boxes))
        rows += _class_rows(title, TABLE11[title], found)
    plot = _bars(request, rows, "VOC 2007 AP")
    return Table("table11", str(request.data), "VOC07 AP, %", tuple(rows), _differs(request), plot)


def table12(request: Request) -> Table:
    """Two networks and their combination: each scores all windows, NMS on the union."""
    options = _options(request, scales=FIVE_SCALES)
    both = [_detector(request, options, seed).fit(request.data, quiet=request.quiet) for seed in (0, 1)]
    part = default_split(request.data, "evaluate")
    dataset = detection_for(read_detection(request.data, part), both[0].names_)
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
        rows += _class_rows(title, TABLE12[title], detection_metrics(detections, truths))
    same = "the two differ in the seed of fc6, fc7 and of the order of training; their convolutions are "
    same += "the same where the network is pretrained (the paper found no gain then)"
    plot = _bars(request, rows, "VOC 2007 AP")
    differs = (*_differs(request), same)
    return Table("table12", str(request.data), "VOC07 AP, %", tuple(rows), differs, plot)


def _bars(request: Request, rows: list[Row], label: str) -> bytes | None:
    """The paper's figures and ours as lines over the rows; None without matplotlib."""
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

"""``sppnet benchmark fitting``: accuracy and time of fitting a detector and a classifier, with peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppnet.backbones import load_backbone, prepare
from sppnet.benchmark.classifying import views_and_pyramids
from sppnet.benchmark.faster_rcnn import train_and_measure
from sppnet.benchmark.measure import machine
from sppnet.benchmark.one_fit import OneFit, fit_once
from sppnet.benchmark.windows import recall_of_windows
from sppnet.data import default_split, read_detection, read_image
from sppnet.detect import Detector
from sppnet.detect.crops import pool_crops
from sppnet.detect.fitting import pooled_source
from sppnet.detect.images import image_of
from sppnet.detect.postprocess import refined
from sppnet.detect.sources import MapSource
from sppnet.detect.suppression import merge
from sppnet.detect.targets import svm_targets
from sppnet.errors import UserError
from sppnet.learn import SvmOptions, fit_linear_svm
from sppnet.structures import Boxes, ImageSize

PARTS = ("prediction", "svm", "rcnn", "windows", "classifier", "curve", "growth", "faster_rcnn")
_PEER_TIMES = (1, 5, 10)
_CURVE = (5, 10, 20, 50, 100, 205)


@dataclass(frozen=True)
class FittingRequest:
    """Options of the benchmark.

    Attributes:
        detection: a detection data set with training and validation splits.
        classification: a classification data set, if any.
        windows: further detection data sets to measure the recall of windows on.
        backbone: name of the network.
        weights: file of its weights, if any.
        parts: measurements out of `PARTS`, in addition to the detector.
        out: folder of the plots and of the detector.
        quick: reduce all measurements, for tests.
        quiet: whether to hide progress bars.
    """

    detection: Path
    classification: Path | None
    windows: tuple[Path, ...]
    backbone: str
    weights: Path | None
    parts: tuple[str, ...]
    out: Path
    quick: bool = False
    quiet: bool = False


def run(request: FittingRequest) -> dict[str, Any]:
    """Make the requested measurements.

    Args:
        request: the options.

    Returns:
        ``{"machine", "rows": [{"work", "ours_s", "peer", "peer_s", "ratio", ...}], "fit_over_pass",
        "predict_over_network", PART: ...}``. ``fit_over_pass`` is the time of a fit relative to that of its
        stage "features", which decodes the training images and runs the network. ``predict_over_network``
        is the time of a prediction relative to that of the network; None without the part "prediction".

    Raises:
        UserError: a part is unknown, or the data are invalid.
    """
    unknown = set(request.parts) - set(PARTS)
    if unknown:
        raise UserError("parts", "names out of " + ", ".join(PARTS), ", ".join(sorted(unknown)))
    request.out.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"machine": machine(), "rows": []}
    fit = fit_once(_task(request, run=str(request.out / "run")))
    document["detector"] = fit
    document["fit_over_pass"] = fit["fit_s"] / max(fit["seconds"]["features"], 1e-3)
    document["predict_over_network"] = None
    detector = Detector.load(request.out / "run")
    if "prediction" in request.parts:
        steps = document["prediction_ms"] = _prediction(request, detector)
        document["predict_over_network"] = steps["all of predict"] / steps["network"]
    if "svm" in request.parts:
        document["rows"].append(_svm_row(request, detector))
    if "rcnn" in request.parts:
        document["rows"].append(_rcnn_row(request, detector))
    if "windows" in request.parts:
        sets = (request.detection, *request.windows)
        most = 2 if request.quick else 30
        document["windows"] = [row for data in sets for row in recall_of_windows(data, most)]
    if "classifier" in request.parts and request.classification is not None:
        document["classifier"] = views_and_pyramids(
            request.classification, request.backbone, request.weights, quiet=request.quiet
        )
    if "curve" in request.parts:
        document["curve"] = _curve(request, fit)
    if "growth" in request.parts:
        document["growth"] = _growth(request, fit)
    if "faster_rcnn" in request.parts:
        document["rows"] += _peer_rows(request, fit)
    return document


def _task(request: FittingRequest, **more: Any) -> OneFit:
    weights = None if request.weights is None else str(request.weights)
    return OneFit(str(request.detection), request.backbone, weights, **more)


def _prediction(request: FittingRequest, detector: Detector) -> dict[str, float]:
    """Measure the median milliseconds of each step of a prediction for an image of 640x480."""
    from torch.nn.functional import interpolate

    items = read_detection(request.detection, default_split(request.detection, "evaluate", None), None).items
    size, post, heads = ImageSize(480, 640), detector.options.post, detector.heads_
    times: dict[str, list[float]] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        times.setdefault(step, []).append(1000 * (time.perf_counter() - start))
        return result

    for number, item in enumerate((items * 10)[:33]):
        if number == 3:
            times.clear()  # the first three images are a warm-up
        image = timed("decode the file", lambda item=item: read_image(item.path))
        if image.shape[1:] != (480, 640):
            image = interpolate(image[None], (480, 640), mode="bilinear", antialias=True)[0]
        windows = timed("windows", lambda: detector.proposals_.boxes(size))
        source = _source(detector, image, windows)
        timed("network", lambda source=source: source.maps(0))
        boxes, scores, labels = timed(
            "score, regress, score again",
            lambda source=source: refined(source, source, (0, 0), heads, post),
        )
        slope, offset = heads.calibration[labels].unbind(1)
        logits = slope * scores + offset
        timed(
            "suppress and vote",
            lambda b=boxes, s=logits, ls=labels: merge(b, s, ls, heads.names, post),
        )
        timed("all of predict", lambda item=item: detector.predict(item.path))
    return {step: statistics.median(measured) for step, measured in times.items()}


def _source(detector: Detector, image: Tensor, windows: Boxes) -> MapSource:
    """Return the features of windows of one image."""
    source = pooled_source(detector.network_, [image_of(image)], [windows], detector.options, None)
    assert isinstance(source, MapSource)
    return source


def _svm_table(request: FittingRequest, detector: Detector) -> tuple[Tensor, Tensor]:
    """Return features of mean norm 20 and targets of objects and random windows of training images."""
    items = read_detection(request.detection, None, None).items[: 3 if request.quick else 80]
    draw = torch.Generator().manual_seed(0)
    rows: list[Tensor] = []
    targets: list[Tensor] = []
    for item in items:
        windows = detector.proposals_.boxes(item.truth.boxes.size)
        joined = Boxes(torch.cat([item.truth.boxes.clip().xyxy, windows.xyxy]), windows.size)
        # Objects come first, followed by windows, some of which contain parts of objects.
        some = torch.randperm(len(windows), generator=draw)[:100] + len(item.truth)
        chosen = torch.cat([torch.arange(len(item.truth)), some])
        rows.append(_source(detector, read_image(item.path), joined).rows(0, chosen))
        targets.append(svm_targets(joined, item.truth, detector.options.target)[chosen])
    table = torch.cat(rows)
    return table * (20 / table.norm(dim=1).mean()), torch.cat(targets)


def _svm_row(request: FittingRequest, detector: Detector) -> dict[str, object]:
    """Compare `fit_linear_svm` with LinearSVC on the same features: times and final objectives."""
    from sklearn.svm import LinearSVC

    rows, targets = _svm_table(request, detector)
    options = SvmOptions(C=1e-3, bias_feature=10.0, positive_weight=2.0, tolerance=0.01)
    start = time.perf_counter()
    model = fit_linear_svm(rows, targets, options)
    ours_s = time.perf_counter() - start
    peer_s, reached, peer_reached = 0.0, [], []
    for number in range(targets.shape[1]):
        used = targets[:, number] != 0
        x, sign = rows[used], targets[used, number].float()
        peer = LinearSVC(C=1e-3, dual="auto", intercept_scaling=10, class_weight={1: 2.0, -1: 1.0})
        start = time.perf_counter()
        peer.fit(x.numpy(), sign.numpy())
        peer_s += time.perf_counter() - start
        weight, bias = (
            torch.as_tensor(peer.coef_).flatten(),
            float(torch.as_tensor(peer.intercept_).flatten()[0]),
        )
        reached.append(_objective(x, sign, model.weight[number], float(model.bias[number])))
        peer_reached.append(_objective(x, sign, weight, bias))
    return {
        "work": f"SVMs of {targets.shape[1]} classes on {len(rows)} features of length {rows.shape[1]}",
        "ours_s": ours_s,
        "peer": "scikit-learn LinearSVC",
        "peer_s": peer_s,
        "ratio": peer_s / ours_s,
        "objective": reached,
        "peer_objective": peer_reached,
    }


def _objective(rows: Tensor, signs: Tensor, weight: Tensor, bias: float) -> float:
    """Compute the common objective in float64."""
    slack = (1 - signs.double() * (rows.double() @ weight.double() + bias)).clamp(min=0)
    cost = torch.where(signs > 0, 2.0, 1.0).double() * 1e-3
    return float(weight.double().square().sum() / 2 + (bias / 10) ** 2 / 2 + (cost * slack.square()).sum())


def _rcnn_row(request: FittingRequest, detector: Detector) -> dict[str, object]:
    """Compare the features of all windows of one image: pooled from maps, and by warping each window."""
    item = read_detection(request.detection, None, None).items[0]
    image, levels = read_image(item.path), detector.options.pool.levels
    windows = detector.proposals_.boxes(ImageSize(image.shape[1], image.shape[2]))
    some = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:256]]
    network = prepare(load_backbone(request.backbone, request.weights), torch.device("cpu"))
    times: list[float] = []
    for _ in range(2 if request.quick else 8):
        start = time.perf_counter()
        source = replace(_source(detector, image, windows), network=network)
        source.rows(0, torch.arange(len(windows)))
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    pool_crops(network, image, some[: 16 if request.quick else 256], levels)
    each = (time.perf_counter() - start) / (16 if request.quick else 256)
    ours_s, peer_s = statistics.median(times[1:]), each * len(windows)
    return {
        "work": f"features of the {len(windows)} windows of an image, network included",
        "ours_s": ours_s,
        "peer": "R-CNN: each window cropped, warped to 227 and convolved (256 measured, times their number)",
        "peer_s": peer_s,
        "ratio": peer_s / ours_s,
    }


def _curve(request: FittingRequest, fit: dict[str, Any]) -> list[dict[str, object]]:
    """Measure accuracy and seconds by number of training images, and draw two plots."""
    from sppnet.draw import plot_lines, save_image

    count = len(read_detection(request.detection, None, None))
    sizes = [n for n in _CURVE if n < count] + [count]
    rows: list[dict[str, object]] = []
    for n in sizes[:2] if request.quick else sizes:
        result = fit if n == count else fit_once(_task(request, images=n))
        rows.append({"images": n, **{k: result[k] for k in ("fit_s", "AP50", "AP75", "AP")}})
    images = [float(str(row["images"])) for row in rows]
    lines = {name: (images, [float(str(row[name])) for row in rows]) for name in ("AP50", "AP75", "AP")}
    title = f"Detector.fit on {request.detection.name}"
    save_image(request.out / "curve.png", plot_lines(lines, title, "training images", "AP"))
    seconds = {"fit": (images, [float(str(row["fit_s"])) for row in rows])}
    save_image(request.out / "seconds.png", plot_lines(seconds, title, "training images", "seconds"))
    return rows


def _growth(request: FittingRequest, fit: dict[str, Any]) -> list[dict[str, object]]:
    """Measure time and peak memory with four copies of every image."""
    rows: list[dict[str, object]] = []
    for repeat in (1, 2) if request.quick else (1, 4):
        result = fit if repeat == 1 else fit_once(_task(request, repeat=repeat, evaluate=False))
        rows.append({k: result[k] for k in ("images", "fit_s", "peak_memory_mb")})
    return rows


def _peer_rows(request: FittingRequest, fit: dict[str, Any]) -> list[dict[str, object]]:
    """Compare the fit with Faster R-CNN, trained for multiples of its time."""
    limits = [fit["fit_s"] * times for times in (_PEER_TIMES[:1] if request.quick else _PEER_TIMES)]
    results = train_and_measure(
        request.detection, request.backbone, request.weights, limits, quiet=request.quiet
    )
    return [
        {
            "work": f"a detector: AP50 {fit['AP50']:.3f}, AP75 {fit['AP75']:.3f}",
            "ours_s": fit["fit_s"],
            "peer": f"Faster R-CNN, same weights: AP50 {peer['AP50']:.3f}, AP75 {peer['AP75']:.3f}",
            "peer_s": peer["seconds"],
            "ratio": peer["seconds"] / fit["fit_s"],
            "peer_steps": peer["steps"],
            "ours_AP50": fit["AP50"],
            "peer_AP50": peer["AP50"],
            "ours_AP75": fit["AP75"],
            "peer_AP75": peer["AP75"],
        }
        for peer in results
    ]

"""``sppnet benchmark detection``: time of pooling proposals from maps and of convolving crops (R-CNN).

Network, proposals and heads are the same in both, as in Table 10 of the paper (He et al. 2015, section 4.3),
so that only the order of cropping and convolving differs.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sppnet.backbones import Backbone, load_backbone, prepare
from sppnet.benchmark.measure import machine
from sppnet.benchmark.settings import DetectionBenchmark
from sppnet.detect.crops import CropOptions, crop_windows
from sppnet.errors import MissingExtraError
from sppnet.features import extract, score_rows
from sppnet.features.network import pick_device
from sppnet.ops import spatial_pyramid_pool
from sppnet.ops.pyramid import LEVELS
from sppnet.structures import Boxes, ImageSize

ONE_SCALE = (688,)
FIVE_SCALES = (480, 576, 688, 864, 1200)
COUNTS = (10, 100, 1000, 10000)
_CLASSES = 20
PUBLISHED_BATCH = 256
"""Number of crops per batch in the R-CNN release, rcnn_features.m."""
_BATCHES = (16, 64, PUBLISHED_BATCH)
_SIZE = ImageSize(480, 640)
_MAX_CROPS = 1000  # for more windows, the time of R-CNN is extrapolated


@dataclass(frozen=True)
class _Times:
    """Seconds of one pipeline on one image."""

    conv: float
    pool: float
    fc: float
    crop: float = 0.0

    @property
    def features(self) -> float:
        """The sum of all stages."""
        return self.conv + self.pool + self.fc + self.crop


def image_and_windows(count: int, seed: int = 0) -> tuple[Tensor, Boxes]:
    """Create an image of coloured discs on noise and random windows of at least 20 pixels per side."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.rand(3, _SIZE.height, _SIZE.width, generator=draw) * 0.2 + 0.4
    rows, columns = torch.arange(_SIZE.height)[:, None], torch.arange(_SIZE.width)[None]
    for x, y, radius, *colour in torch.rand(30, 6, generator=draw).tolist():
        inside = (columns - x * _SIZE.width) ** 2 + (rows - y * _SIZE.height) ** 2 < (20 + 60 * radius) ** 2
        image[:, inside] = torch.tensor(colour)[:, None]
    sides = 20 * (torch.tensor([[_SIZE.width, _SIZE.height]]) / 20) ** torch.rand(count, 2, generator=draw)
    low = torch.rand(count, 2, generator=draw) * (torch.tensor([_SIZE.width, _SIZE.height]) - sides)
    return image, Boxes(torch.cat([low, low + sides], 1), _SIZE).clip()


def _network(settings: DetectionBenchmark) -> tuple[str, Backbone]:
    """Return the name of the network and the prepared network, with random weights if none are given."""
    name = settings.backbone
    if settings.weights is None and name.startswith(("torchvision:", "timm:")):
        name = f"random:{name}"
    backbone = load_backbone(name, settings.weights, (settings.layer,))
    return name, prepare(backbone, pick_device(settings.device))


def _heads(network: Backbone) -> tuple[Tensor, Tensor]:
    """Create one random linear function per class of the pooled features, like SVMs."""
    draw = torch.Generator().manual_seed(0)
    length = sum(layer.channels for layer in network.layers) * sum(n * n for n in LEVELS)
    weight = torch.randn(_CLASSES, length, generator=draw) / length**0.5
    return weight.to(network.device), torch.zeros(_CLASSES, device=network.device)


def _now(network: Backbone) -> float:
    if network.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def time_pooling(
    network: Backbone, image: Tensor, windows: Boxes, scales: Sequence[int], runs: int
) -> _Times:
    """Time SPP-net: maps of each scale, then pooling and scores of all windows; medians after a warm-up."""
    weight, bias = _heads(network)
    table: list[tuple[float, float]] = []
    with torch.inference_mode():
        for _ in range(runs + 1):
            start = _now(network)
            maps = extract(network, image, scales)
            middle = _now(network)
            score_rows(maps, windows, weight, bias, LEVELS)
            table.append((middle - start, _now(network) - middle))
    conv, pool = (statistics.median(column) for column in zip(*table[1:], strict=True))
    return _Times(conv, pool, 0.0)


def time_cropping(network: Backbone, image: Tensor, windows: Boxes, options: CropOptions) -> _Times:
    """Time R-CNN: the stages, each summed over the batches."""
    weight, bias = _heads(network)
    image = image.to(network.device)
    fill = network.mean.flatten()
    crop = conv = pool = fc = 0.0
    with torch.inference_mode():
        for start in range(0, len(windows), options.batch):
            piece = windows[slice(start, start + options.batch)]
            marks = [_now(network)]
            crops = crop_windows(image, piece, fill, options)
            marks.append(_now(network))
            maps = network(crops)
            marks.append(_now(network))
            rows = torch.cat([spatial_pyramid_pool(one, LEVELS).float() for one in maps], 1)
            marks.append(_now(network))
            functional.linear(rows, weight, bias)
            marks.append(_now(network))
            spent = [after - before for before, after in itertools.pairwise(marks)]
            crop, conv, pool, fc = crop + spent[0], conv + spent[1], pool + spent[2], fc + spent[3]
    return _Times(conv, pool, fc, crop)


def best_batch(
    network: Backbone, image: Tensor, windows: Boxes, side: int
) -> tuple[CropOptions, dict[str, float]]:
    """Find the fastest batch size of R-CNN, and return the seconds per window of all batch sizes too."""
    seconds: dict[int, float] = {}
    for batch in _BATCHES:
        options = CropOptions(side, 16, batch)
        some = windows[: max(64, batch)]
        time_cropping(network, image, some[:16], options)
        seconds[batch] = time_cropping(network, image, some, options).features / len(some)
    fastest = min(seconds, key=lambda batch: seconds[batch])
    return CropOptions(side, 16, fastest), {str(batch): value for batch, value in seconds.items()}


def _proposals_seconds(image: Tensor) -> float | None:
    """Time selective search on the image; None without OpenCV."""
    from sppnet.proposals import selective_search

    start = time.perf_counter()
    try:
        selective_search(image)
    except MissingExtraError:
        return None
    return time.perf_counter() - start


def _rows(pooling: dict[str, _Times], rcnn: dict[str, _Times], count: int) -> list[dict[str, object]]:
    """Compare convolutions, pooling with fc, and their sum, for all pairs of settings."""
    rows: list[dict[str, object]] = []
    for title, one in pooling.items():
        for name, peer in rcnn.items():
            for work, ours_s, peer_s in (
                ("convolutions; R-CNN's with cropping", one.conv, peer.conv + peer.crop),
                ("pooling and fc", one.pool + one.fc, peer.pool + peer.fc),
                (f"features in all, {count} windows", one.features, peer.features),
            ):
                row = {"work": f"{title}, {work}", "ours_s": ours_s, "peer": name, "peer_s": peer_s}
                rows.append({**row, "ratio": peer_s / max(ours_s, 1e-9)})
    return rows


def run(
    settings: DetectionBenchmark | None = None,
    plot: Path | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Time both pipelines on one image.

    SqueezeNet has no fully connected layers; "fc" is the product of the pooled features with one linear
    function for each of 20 classes, which pooling from maps computes in the same step. R-CNN is timed on the
    same windows with the same prepared network, with batches of 256 as in its release and with the fastest
    batch size.

    Args:
        settings: the options; ``DetectionBenchmark()`` by default.
        plot: PNG file for a plot of the ratio over the number of windows, if any.
        say: function that receives the name of each stage.

    Returns:
        ``{"machine", "speedup_1_scale", "speedup_5_scale", "network", "windows", "rows", "rcnn", "batch",
        "batch_seconds_a_window", "proposals_s", "growth"}``. Speed-ups are the time of R-CNN with its
        fastest batch size over that of SPP-net. ``rcnn["best_batch"]`` and ``rcnn["as_published"]`` have
        ``batch``, ``crop_s``, ``conv_s``, ``features_s`` and the speed-ups of all features (crops,
        convolutions, pooling, fc) and of the convolutions. ``growth`` has them by number of windows, with
        a flag where the time of R-CNN is extrapolated.

    Raises:
        UserError: the network, layer or device is unknown.
    """
    settings = settings or DetectionBenchmark()
    name, network = _network(settings)
    count = 64 if settings.quick else settings.windows
    counts = (10, 64) if settings.quick else COUNTS
    image, windows = image_and_windows(max(count, *counts))
    say("R-CNN's best batch size")
    crops, batches = best_batch(network, image, windows, settings.crop)
    say("pooling from maps")
    one = time_pooling(network, image, windows[:count], ONE_SCALE, settings.runs)
    five = time_pooling(network, image, windows[:count], FIVE_SCALES, settings.runs)
    say(f"R-CNN on {count} windows, batches of {crops.batch}")
    peer = time_cropping(network, image, windows[:count], crops)
    published, options = peer, CropOptions(settings.crop, 16, PUBLISHED_BATCH)
    if crops.batch != PUBLISHED_BATCH:
        say(f"R-CNN on {count} windows, batches of {PUBLISHED_BATCH}")
        published = time_cropping(network, image, windows[:count], options)
    rows = _rows(
        {"1 scale (688)": one, "5 scales (480 to 1200)": five},
        {
            f"R-CNN, batches of {PUBLISHED_BATCH}, as published": published,
            f"R-CNN, batches of {crops.batch}, the fastest": peer,
        },
        count,
    )
    say("growth with the number of windows")
    per_window = peer.features / count
    growth = [_growth_row(network, image, windows[:n], crops, per_window, settings.runs) for n in counts]
    if plot is not None:
        _draw(plot, growth)
    best = _speedups(peer, crops.batch, one, five)
    return {
        "machine": machine(),
        "speedup_1_scale": best["speedup_1_scale"],
        "speedup_5_scale": best["speedup_5_scale"],
        "network": name,
        "windows": count,
        "rows": rows,
        "rcnn": {"as_published": _speedups(published, PUBLISHED_BATCH, one, five), "best_batch": best},
        "batch": crops.batch,
        "batch_seconds_a_window": batches,
        "proposals_s": _proposals_seconds(image),
        "growth": growth,
    }


def _speedups(peer: _Times, batch: int, one: _Times, five: _Times) -> dict[str, float]:
    """Return the times of R-CNN and its ratios to those of SPP-net at one and at five scales."""
    return {
        "batch": batch,
        "crop_s": peer.crop,
        "conv_s": peer.conv,
        "features_s": peer.features,
        "speedup_1_scale": peer.features / one.features,
        "speedup_5_scale": peer.features / five.features,
        "conv_speedup_1_scale": (peer.conv + peer.crop) / one.conv,
        "conv_speedup_5_scale": (peer.conv + peer.crop) / five.conv,
    }


def _growth_row(
    network: Backbone, image: Tensor, windows: Boxes, crops: CropOptions, per_window: float, runs: int
) -> dict[str, object]:
    """Compare both pipelines for one number of windows."""
    one = time_pooling(network, image, windows, ONE_SCALE, runs).features
    five = time_pooling(network, image, windows, FIVE_SCALES, min(runs, 3)).features
    measured = len(windows) <= _MAX_CROPS
    peer = time_cropping(network, image, windows, crops).features if measured else per_window * len(windows)
    return {
        "windows": len(windows),
        "one_scale_s": one,
        "five_scales_s": five,
        "rcnn_s": peer,
        "speedup_1_scale": peer / one,
        "speedup_5_scale": peer / five,
        "rcnn_extrapolated": not measured,
    }


def _draw(path: Path, growth: Sequence[dict[str, Any]]) -> None:
    from sppnet.draw import plot_lines, save_image

    x = [math.log10(row["windows"]) for row in growth]
    lines = {
        "1 scale": (x, [row["speedup_1_scale"] for row in growth]),
        "5 scales": (x, [row["speedup_5_scale"] for row in growth]),
    }
    title = "Feature time, R-CNN / SPP-net (extrapolated above 1,000 windows)"
    save_image(path, plot_lines(lines, title, "log10 of windows per image", "ratio"))

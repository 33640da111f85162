"""``sppnet benchmark detection``: windows pooled from maps beside crops convolved one by one (R-CNN).

The shape of the paper's Table 10 (section 4.3): the same network, windows and heads in both, so that
only the order of cropping and convolving differs.
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
"""Crops that R-CNN's release, and the paper's measurement of it, ran through the network together."""
_BATCHES = (16, 64, PUBLISHED_BATCH)
_SIZE = ImageSize(480, 640)
_MOST_CROPS = 1000  # beyond it, R-CNN's time in the growth is extrapolated


@dataclass(frozen=True)
class _Times:
    """Seconds of one pipeline on one image."""

    conv: float
    pool: float
    fc: float
    crop: float = 0.0

    @property
    def features(self) -> float:
        return self.conv + self.pool + self.fc + self.crop


def image_and_windows(count: int, seed: int = 0) -> tuple[Tensor, Boxes]:
    """An image of coloured discs on noise and windows of at least 20 pixels a side; time needs no more."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.rand(3, _SIZE.height, _SIZE.width, generator=draw) * 0.2 + 0.4
    rows, columns = torch.arange(_SIZE.height)[:, None], torch.arange(_SIZE.width)[None]
    for x, y, radius, *colour in torch.rand(30, 6, generator=draw).tolist():
        inside = (columns - x * _SIZE.width) ** 2 + (rows - y * _SIZE.height) ** 2 < (20 + 60 * radius) ** 2
        image[:, inside] = torch.tensor(colour)[:, None]
    sides = 20 * (torch.tensor([[_SIZE.width, _SIZE.height]]) / 20) ** torch.rand(count, 2, generator=draw)
    low = torch.rand(count, 2, generator=draw) * (torch.tensor([_SIZE.width, _SIZE.height]) - sides)
    return image, Boxes(torch.cat([low, low + sides], 1), _SIZE).clip()


def _heads(network: Backbone) -> tuple[Tensor, Tensor]:
    """One linear function a class on pooled rows, as the SVMs are."""
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
    """Maps once a scale; every window pooled and scored in one step. Medians, after one warm-up."""
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
    """R-CNN's way, its parts summed over the batches."""
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
    """The batch size at which R-CNN is fastest, and seconds a window of each."""
    seconds: dict[int, float] = {}
    for batch in _BATCHES:
        options = CropOptions(side, 16, batch)
        some = windows[: max(64, batch)]
        time_cropping(network, image, some[:16], options)
        seconds[batch] = time_cropping(network, image, some, options).features / len(some)
    fastest = min(seconds, key=lambda batch: seconds[batch])
    return CropOptions(side, 16, fastest), {str(batch): value for batch, value in seconds.items()}


def _proposals_seconds(image: Tensor) -> float | None:
    """Of selective search on the image; None without OpenCV."""
    from sppnet.proposals import selective_search

    start = time.perf_counter()
    try:
        selective_search(image)
    except MissingExtraError:
        return None
    return time.perf_counter() - start


def _rows(ours: dict[str, _Times], peers: dict[str, _Times], count: int) -> list[dict[str, object]]:
    """Each of ours beside each of R-CNN's: convolutions, what follows them, and both together."""
    rows: list[dict[str, object]] = []
    for title, one in ours.items():
        for name, peer in peers.items():
            for work, here, there in (
                ("convolutions; R-CNN's with cropping", one.conv, peer.conv + peer.crop),
                ("pooling and fc", one.pool + one.fc, peer.pool + peer.fc),
                (f"features in all, {count} windows", one.features, peer.features),
            ):
                ratio = there / max(here, 1e-9)
                rows.append(
                    {
                        "work": f"{title}, {work}",
                        "ours_s": here,
                        "peer": name,
                        "peer_s": there,
                        "ratio": ratio,
                    }
                )
    return rows


def run(
    settings: DetectionBenchmark | None = None,
    plot: Path | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Time both pipelines on one image.

    SqueezeNet has no fully connected layers: fc is the product with one linear function for each of 20
    classes on the pooled rows, which pooling from maps does in the same step as pooling.

    Args:
        settings: what is measured.
        plot: also draw how the ratio grows with the number of windows into this PNG.
        say: told what is being measured.

    R-CNN is measured twice on the same windows with the same prepared network: in batches of 256, as it was
    published, and in those that are fastest here.

    Returns:
        ``{"machine", "speedup_1_scale", "speedup_5_scale", "network", "windows", "rows", "rcnn", "batch",
        "batch_seconds_a_window", "proposals_s", "growth"}``. The two speed-ups are R-CNN's time in its
        fastest batches over ours. ``rcnn["best_batch"]`` and ``rcnn["as_published"]`` have each its
        ``batch``, ``crop_s``, ``conv_s``, ``features_s`` and the speed-ups: R-CNN's feature time (crops,
        convolutions, pooling, fc) over ours, and that of the convolutions alone. ``growth`` has them by
        number of windows, for the best batch, and says where R-CNN's time was extrapolated.

    Raises:
        UserError: an unknown network, layer or device.
    """
    settings = settings or DetectionBenchmark()
    name = settings.backbone
    if settings.weights is None and name.startswith(("torchvision:", "timm:")):
        name = f"random:{name}"
    backbone = load_backbone(name, settings.weights, (settings.layer,))
    network = prepare(backbone, pick_device(settings.device))
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
    published = peer
    if crops.batch != PUBLISHED_BATCH:
        say(f"R-CNN on {count} windows, batches of {PUBLISHED_BATCH}")
        published = time_cropping(
            network, image, windows[:count], CropOptions(settings.crop, 16, PUBLISHED_BATCH)
        )
    rows = _rows(
        {"1 scale (688)": one, "5 scales (480 to 1200)": five},
        {
            f"R-CNN, batches of {PUBLISHED_BATCH}, as published": published,
            f"R-CNN, batches of {crops.batch}, its best here": peer,
        },
        count,
    )
    say("growth with the number of windows")
    a_window = peer.features / count
    growth = [_grown(network, image, windows[:n], crops, a_window, settings.runs) for n in counts]
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
        "rcnn": {
            "as_published": _speedups(published, PUBLISHED_BATCH, one, five),
            "best_batch": best,
        },
        "batch": crops.batch,
        "batch_seconds_a_window": batches,
        "proposals_s": _proposals_seconds(image),
        "growth": growth,
    }


def _speedups(peer: _Times, batch: int, one: _Times, five: _Times) -> dict[str, float]:
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


def _grown(
    network: Backbone, image: Tensor, windows: Boxes, crops: CropOptions, a_window: float, runs: int
) -> dict[str, object]:
    one = time_pooling(network, image, windows, ONE_SCALE, runs).features
    five = time_pooling(network, image, windows, FIVE_SCALES, min(runs, 3)).features
    measured = len(windows) <= _MOST_CROPS
    peer = time_cropping(network, image, windows, crops).features if measured else a_window * len(windows)
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
    title = "R-CNN's feature time over ours (beyond 1,000 windows extrapolated)"
    save_image(path, plot_lines(lines, title, "windows an image, logarithm to base 10", "ratio"))

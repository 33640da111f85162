"""The stages of fitting a detector: maps, windows, SVMs, regressors, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.data import ImageSource, ScaledImage, read_scaled
from sppnet.detect.iou_head import fit_iou_head
from sppnet.detect.mining import fit_svms, make_scene
from sppnet.detect.options import DetectorOptions
from sppnet.detect.postprocess import Heads, margins_and_boxes
from sppnet.detect.regression import RegressionSample, fit_regressors
from sppnet.detect.samples import choose_for_regression, class_overlaps, draw_evenly
from sppnet.errors import UserError
from sppnet.features import extract
from sppnet.features.extract import resized_size
from sppnet.features.store import MapStore
from sppnet.learn import fit_sigmoid
from sppnet.progress import Stopwatch, track
from sppnet.proposals import dense_windows, proposals_for, shapes_from_boxes
from sppnet.structures import Boxes, DetectionSet, FeatureMaps, GroundTruth, ImageSize

_REGRESSED_PER_OBJECT = 8
_REGRESSED = 30_000
"""Windows that regressors learn from, about; bounds the memory of fitting."""
_CALIBRATION_IMAGES = 40
_CALIBRATION_PER_CLASS = 10
_MATCH_IOU = 0.5


def scales_of(options: DetectorOptions) -> tuple[int, ...] | None:
    """What `extract` takes: the short side, or None for an image's own size."""
    return (options.short_side,) if options.short_side else None


def read_for(network: Backbone, source: ImageSource, options: DetectorOptions) -> ScaledImage:
    """An image for `maps_of`; a very large one is averaged down while it is decoded."""
    scale = options.short_side or None
    return read_scaled(source, lambda size: resized_size(size, scale, network, options.long_side))


def maps_of(
    network: Backbone, image: Tensor, options: DetectorOptions, size: ImageSize | None = None
) -> FeatureMaps:
    """The maps of one image at the detector's scale; ``size`` is the image's own, which boxes refer to."""
    return extract(network, image, scales_of(options), long_side=options.long_side, image_size=size)


def windows_of(
    size: ImageSize,
    shapes: Tensor,
    options: DetectorOptions,
    given: Mapping[str, Tensor] | None,
    path: Path | None,
) -> Boxes:
    """The windows of an image: its boxes in the proposals file, or dense ones."""
    if given is not None:
        if path is None:
            wanted = "an image by its path, to find its boxes in the proposals file"
            raise UserError("source", wanted, "an image in memory")
        return proposals_for(given, path, size).boxes
    return dense_windows(size, shapes, step=options.window_step, most=options.windows)


def learn_shapes(dataset: DetectionSet, most: int) -> Tensor:
    """Window shapes from all boxes; every class weighs the same, however many boxes it has."""
    counts = torch.zeros(len(dataset.names))
    for item in dataset.items:
        counts += torch.bincount(item.truth.labels, minlength=len(counts))
    if not counts.any():
        raise UserError(dataset.root, "annotated objects to learn from", "images without any")
    share = 1 / counts.clamp(min=1)
    items = [item.truth for item in dataset.items]
    return shapes_from_boxes([t.boxes for t in items], [share[t.labels] for t in items], most=most)


def fit_heads(
    network: Backbone,
    dataset: DetectionSet,
    shapes: Tensor,
    options: DetectorOptions,
    given: Mapping[str, Tensor] | None,
    seed: int,
    watch: Stopwatch,
    *,
    quiet: bool,
) -> tuple[Heads, dict[str, object], list[str]]:
    """Everything that is learned from the images of a data set.

    Returns:
        The heads; counts: ``"images"``, ``"windows"`` (of all images), ``"rows"``, ...; and what was left
        out for want of room, a sentence each.
    """
    draw = torch.Generator().manual_seed(seed)
    truths = [item.truth for item in dataset.items]
    objects = sum(map(len, truths))
    flipped = objects < options.flip_below
    # Whatever annotations and proposals decide comes before the network runs.
    windows = _all_windows(dataset, shapes, options, given)
    counted = sum(map(len, windows))
    if flipped:
        windows = [two for some in windows for two in (some, some.flipped())]
        truths = [two for t in truths for two in (t, replace(t, boxes=t.boxes.flipped()))]
    scenes = [make_scene(some, truth) for some, truth in zip(windows, truths, strict=True)]
    watch("windows")
    with MapStore(options.cache_mb * 2**20) as store:
        for item in track(dataset.items, "Feature maps", quiet=quiet):
            image = read_for(network, item.path, options)
            store.add(maps_of(network, image.values, options, image.size))
            if flipped:
                store.add(maps_of(network, image.values.flip(2), options, image.size))
        watch("features")
        svm, counts = fit_svms(store, scenes, options, draw, seconds=watch, quiet=quiet)
        chosen = _regression_samples(windows, truths, draw)
        regressors = fit_regressors(store, chosen, truths, options.ridge)
        watch("regression")
        heads = Heads(
            dataset.names, svm, regressors, torch.tensor([[1.0, 0.0]]).repeat(len(dataset.names), 1)
        )
        if options.iou_head:
            heads = fit_iou_head(store, windows, truths, heads, options, draw)
            watch("iou_head")
        heads = replace(heads, calibration=_calibrate(store, windows, truths, heads, options))
        watch("calibration")
        facts: dict[str, object] = {
            "images": len(dataset),
            "flipped": flipped,
            "objects": objects,
            "windows": counted,
            **counts,
            "maps_mb": round((store.bytes_in_memory + store.bytes_on_disk) / 2**20, 1),
        }
    return heads, facts, _left_out(counts, options)


def _left_out(counts: Mapping[str, int], options: DetectorOptions) -> list[str]:
    """What the SVMs did not learn from, in one sentence; nothing where all rows had room."""
    first, hard = counts["rows_left_out"], counts["negatives_left_out"]
    if not first and not hard:
        return []
    what = f"{first} windows of the first sample and {hard} hard negatives"
    return [f"rows is {options.rows} (--rows): {what} left out, drawn evenly over classes and images"]


def _regression_samples(
    windows: Sequence[Boxes], truths: Sequence[GroundTruth], draw: torch.Generator
) -> list[RegressionSample]:
    """Windows on objects, up to eight per object; of very many, an even draw over classes and images."""
    objects = max(1, sum(map(len, truths)))
    each = max(1, min(_REGRESSED_PER_OBJECT, _REGRESSED // objects))
    found = [
        choose_for_regression(some, truth, each, draw) for some, truth in zip(windows, truths, strict=True)
    ]
    counts = [len(index) for index, _ in found]
    taken = [torch.ones(count, dtype=torch.bool) for count in counts]
    if objects > _REGRESSED:
        labels = torch.cat([t.labels[owner] for t, (_, owner) in zip(truths, found, strict=True)])
        images = torch.arange(len(truths)).repeat_interleave(torch.tensor(counts))
        kept = torch.zeros(len(labels), dtype=torch.bool)
        kept[draw_evenly(labels, images, torch.zeros(len(labels)), _REGRESSED, draw)] = True
        taken = list(kept.split(counts))
    return [
        RegressionSample(some[index[mine]], owner[mine])
        for some, (index, owner), mine in zip(windows, found, taken, strict=True)
    ]


def _all_windows(
    dataset: DetectionSet, shapes: Tensor, options: DetectorOptions, given: Mapping[str, Tensor] | None
) -> list[Boxes]:
    """The windows of every image; images of one size share their dense ones."""
    if given is not None:
        return [windows_of(i.truth.boxes.size, shapes, options, given, i.path) for i in dataset.items]
    sizes = {item.truth.boxes.size for item in dataset.items}
    dense = {size: windows_of(size, shapes, options, None, None) for size in sizes}
    return [dense[item.truth.boxes.size] for item in dataset.items]


def _calibration_images(truths: Sequence[GroundTruth]) -> list[int]:
    """Every n-th image, and for each class of which these show no object up to ten images that do."""
    chosen = list(range(0, len(truths), max(1, len(truths) // _CALIBRATION_IMAGES)))
    seen = {number for i in chosen for number in truths[i].labels.tolist()}
    for number in range(len(truths[0].names)):
        if number not in seen:
            showing = [i for i, truth in enumerate(truths) if number in truth.labels]
            chosen += showing[:: max(1, len(showing) // _CALIBRATION_PER_CLASS)][:_CALIBRATION_PER_CLASS]
    return sorted(set(chosen))


def _calibrate(
    store: MapStore,
    windows: Sequence[Boxes],
    truths: Sequence[GroundTruth],
    plain: Heads,
    options: DetectorOptions,
) -> Tensor:
    """Slope and offset ``[K, 2]`` that turn a margin into the probability of an IoU of 0.5 or more."""
    margins: list[Tensor] = []
    right: list[Tensor] = []
    labels: list[Tensor] = []
    for i in _calibration_images(truths):
        boxes, margin, label = margins_and_boxes(store[i], windows[i], plain, options)
        overlaps = class_overlaps(boxes, truths[i])
        margins.append(margin)
        labels.append(label)
        right.append(overlaps[torch.arange(len(label)), label] >= _MATCH_IOU)
    margin, label, hit = torch.cat(margins), torch.cat(labels), torch.cat(right)
    table = plain.calibration.clone()
    for number in range(len(plain.names)):
        mine = label == number
        if bool(hit[mine].any()) and not bool(hit[mine].all()):
            table[number] = torch.tensor(fit_sigmoid(margin[mine], hit[mine]))
    return table

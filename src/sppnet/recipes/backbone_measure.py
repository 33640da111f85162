"""Measure a backbone on four tasks and its time, for the table of `sppnet.recipes.backbone_table`."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from sppnet.backbones import load_backbone, prepare
from sppnet.classify import Classifier
from sppnet.detect import Detector

DETECTION = {"bccd": ("train", "val"), "fruit": ("train", "val"), "raccoon": (None, None)}
"""Detection data sets with their splits; raccoon has no splits, and a quarter of it is held out."""
CLASSIFICATION = {"caltech101-small": ("train", "test")}
HELD_OUT = 0.25
RUNS = 15
SIZE = (480, 640)


def measure(name: str, weights: Path | None, data: Path) -> dict[str, float]:
    """Measure the accuracy and time of a backbone.

    Args:
        name: name for ``--backbone``.
        weights: a safetensors file; None for the default weights.
        data: folder with the data sets ``bccd``, ``fruit``, ``raccoon`` and ``caltech101-small``; missing
            ones are skipped.

    Returns:
        Metrics by the attribute names of `sppnet.backbones.catalogue.Entry`.
    """
    found = {"milliseconds": milliseconds(name, weights)}
    for task, (train, test) in DETECTION.items():
        if (data / task).is_dir():
            share = None if train else HELD_OUT
            detector = Detector(name, weights, val_share=share).fit(data / task, split=train, quiet=True)
            metrics = detector.evaluate(data / task, split=test, quiet=True)
            found |= {f"{task}_ap50": round(metrics["AP50"], 3), f"{task}_ap75": round(metrics["AP75"], 3)}
    for task, (train, test) in CLASSIFICATION.items():
        if (data / task).is_dir():
            classifier = Classifier(name, weights).fit(data / task, split=train, quiet=True)
            metrics = classifier.evaluate(data / task, split=test, quiet=True)
            found["caltech101_accuracy"] = round(metrics["mean_class_accuracy"], 3)
    return found


def milliseconds(name: str, weights: Path | None) -> float:
    """Measure the milliseconds of the network for an image of 640x480, with the threads of torch.

    The result is the minimum of several runs, because background load only increases times.
    """
    network = prepare(load_backbone(name, weights))
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    seconds: list[float] = []
    with torch.inference_mode():
        network(image)
        for _ in range(RUNS):
            start = time.perf_counter()
            network(image)
            seconds.append(time.perf_counter() - start)
    return round(1000 * min(seconds), 1)

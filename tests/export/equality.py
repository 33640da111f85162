"""Compare an estimator with its exported file at random sizes.

    python tests/export/equality.py --run RUN --images FOLDER [--sizes 200]

Prints the largest differences between torch and onnxruntime over images of the folder, resized to random
sizes from 32 x 32 to 400 x 1500.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sppnet.data import find_images, read_image
from sppnet.estimators import load
from sppnet.export.reading import estimator_parts
from sppnet.features import extract, image_rows
from sppnet.runtime import Runtime

EXTREMES = ((32, 32), (400, 1500), (32, 1500), (400, 33), (128, 128))
THRESHOLD = 0.01
SCORES = 1e-3
"""Largest difference of the scores of one detection."""


def random_sizes(count: int, seed: int = 0) -> list[tuple[int, int]]:
    """Heights and widths."""
    draw = np.random.default_rng(seed)
    return [(int(draw.integers(32, 401)), int(draw.integers(32, 1501))) for _ in range(count)]


@dataclass
class Differences:
    """The largest differences so far; ``other`` counts images with other labels or counts."""

    boxes: float = 0.0
    scores: float = 0.0
    features: float = 0.0
    other: int = 0
    found: int = 0
    where: dict[str, Any] = field(default_factory=dict)

    def note(self, name: str, value: float, where: object) -> None:
        """Keep the largest value and where it occurred."""
        if value > getattr(self, name):
            setattr(self, name, value)
            self.where[name] = str(where)


def compare_predictions(estimator: Any, model: Runtime, pixels: np.ndarray, so_far: Differences) -> None:
    """Compare a detector or a classifier with its file on an image."""
    given: dict[str, Any] = {}
    if "proposals" in model.metadata:
        given = {"boxes": estimator.proposals(pixels).xyxy.numpy()}
    ours = estimator.predict(pixels, threshold=THRESHOLD)
    theirs = model.predict(pixels, threshold=THRESHOLD, **given)
    where = pixels.shape[:2]
    so_far.found += len(ours)
    if len(ours) != len(theirs) or sorted(ours.labels.tolist()) != sorted(theirs.labels.tolist()):
        so_far.other += 1
        so_far.where.setdefault("other", []).append(str(where))
        return
    if not len(ours):
        return
    so_far.note("scores", float(np.abs(theirs.scores - ours.scores.numpy()).max()), where)
    if model.kind == "detector":
        so_far.note("boxes", _box_difference(ours, theirs), where)


def _box_difference(ours: Any, theirs: Any) -> float:
    """Return the largest difference of boxes, whatever the order of detections with near-equal scores."""
    difference = np.abs(ours.boxes.numpy()[:, None] - theirs.boxes[None]).max(2)
    apart = np.abs(ours.scores.numpy()[:, None] - theirs.scores[None]) > SCORES
    difference[apart | (ours.labels.numpy()[:, None] != theirs.labels[None])] = np.inf
    return float(max(difference.min(1).max(), difference.min(0).max()))


def compare_features(estimator: Any, model: Runtime, pixels: np.ndarray, so_far: Differences) -> None:
    """Compare the features of an image, relative to the largest one."""
    parts = estimator_parts(estimator).features
    network = getattr(estimator, "network_", parts.backbone)
    network = getattr(network, "backbone", network)
    image = read_image(pixels)
    rows: list[np.ndarray] = []
    for scale in parts.scales:  # 0 is the size of the image
        sides = (scale,) if scale else None
        maps = extract(network, image, sides, antialias=parts.antialias, long_side=parts.long_side)
        rows.append(image_rows(maps, parts.levels).cpu().numpy())
    found = model.features(pixels)
    so_far.note(
        "features", float(np.abs(found - np.concatenate(rows)).max() / np.abs(rows).max()), pixels.shape[:2]
    )


def resized(images: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
    """The images of a folder in turn, resized."""
    for number, (height, width) in enumerate(sizes):
        with Image.open(images[number % len(images)]) as image:
            yield np.asarray(image.convert("RGB").resize((width, height)))


def main() -> None:
    """Export a run and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--sizes", type=int, default=200)
    flags = parser.parse_args()
    estimator = load(flags.run, "cpu")
    images = find_images([flags.images])
    with tempfile.TemporaryDirectory() as folder:
        whole = Runtime(estimator.export(Path(folder, "whole.onnx")))
        features = Runtime(estimator.export(Path(folder, "features.onnx"), part="features"))
    so_far = Differences()
    for pixels in resized(images, [*EXTREMES, *random_sizes(flags.sizes)]):
        compare_predictions(estimator, whole, pixels, so_far)
        compare_features(estimator, features, pixels, so_far)
    print(json.dumps(vars(so_far)))


if __name__ == "__main__":
    main()

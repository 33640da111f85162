"""One run of each kind, small enough to be read and written hundreds of times a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sppnet.detect.paper import PaperDetector, PaperOptions

from sppnet.classify import Classifier, ClassifierOptions, NetworkClassifier, NetworkOptions, TrainOptions
from sppnet.data import write_voc
from sppnet.detect import Detector, DetectorOptions
from sppnet.estimators import Estimator
from sppnet.files import make_folder
from sppnet.structures import Boxes, GroundTruth, ImageSize

BACKBONE = "zf5-small/32"
SIDE = 40


@dataclass(frozen=True)
class TinyData:
    """Folders of images with boxes and of class folders, and one image to predict on."""

    boxes: Path
    classes: Path
    image: np.ndarray[Any, Any]


def make_data(root: Path, images: int = 4) -> TinyData:
    """Images of 40 x 40 with a bright square each, in one of two colours."""
    from PIL import Image

    draw = np.random.default_rng(0)
    items: list[tuple[str, Any, GroundTruth]] = []
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    for i in range(images):
        pixels = draw.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        box = [4 + i % 3, 6, 24 + i % 3, 28]
        pixels[box[1] : box[3], box[0] : box[2], i % 2] += 180
        truth = GroundTruth.make(
            Boxes(torch.tensor([box], dtype=torch.float32), ImageSize(SIDE, SIDE)),
            torch.tensor([i % 2]),
            ("red", "green"),
        )
        items.append((f"image{i}", pixels, truth))
        folder = make_folder(root / "classes" / "train" / ("red", "green")[i % 2])
        Image.fromarray(pixels).save(folder / f"{i}.png")
    write_voc(root / "boxes", items, "train")
    return TinyData(root / "boxes", root / "classes", pixels)


def make_estimators(data: TinyData) -> dict[str, Estimator[Any]]:
    """A fitted estimator of each kind, and each with its options that change what is saved."""
    boxes = DetectorOptions(
        short_side=0, levels=(2, 1), windows=60, shapes=2, mining_rounds=0, rows=200, iou_head=8, flip_below=0
    )
    paper = PaperOptions(scales=(SIDE,), levels=(2, 1))
    tune = {"finetune__lengths": (2,), "finetune__rates": (1e-3,), "finetune__width": 8}
    dense = {"windows__source": "dense", "windows__most": 60, "score_above": -10.0}
    net = NetworkOptions(pyramid=(2, 1), hidden=(8,), start="he")
    train = TrainOptions(short_side=SIDE, crop=36, epochs=1, batch=4, drops=())
    made: list[tuple[str, Estimator[Any], Path]] = [
        ("detector", Detector(BACKBONE, device="cpu", options=boxes), data.boxes),
        (
            "detector without iou head",
            Detector(BACKBONE, device="cpu", options=boxes, iou_head=0),
            data.boxes,
        ),
        ("paper", PaperDetector(BACKBONE, device="cpu", options=paper, **dense, **tune), data.boxes),
        (
            "paper on pooled rows",
            PaperDetector(BACKBONE, device="cpu", options=paper, **dense, features="pool"),
            data.boxes,
        ),
        (
            "classifier",
            Classifier(BACKBONE, device="cpu", options=ClassifierOptions(levels=(2, 1), scales=None)),
            data.classes,
        ),
        ("network", NetworkClassifier(BACKBONE, device="cpu", network=net, train=train), data.classes),
        (
            "network of one size",
            NetworkClassifier(BACKBONE, device="cpu", network=net, train=train, pyramid=(), crop=40),
            data.classes,
        ),
    ]
    fit: Callable[..., Any]
    for _, estimator, folder in made:
        fit = estimator.fit  # type: ignore[attr-defined]
        fit(folder, "train", quiet=True)
    return {name: estimator for name, estimator, _ in made}

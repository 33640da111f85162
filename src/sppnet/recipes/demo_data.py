"""Data sets of the demonstration, created from a seed and data of scikit-learn without any download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sppnet.data import write_voc
from sppnet.files import make_folder, replacing
from sppnet.progress import track
from sppnet.recipes.digits import DIGIT_NAMES, SplitName, class_images, detection_images

__all__ = ["DemoSets", "DemoSize", "write_demo_data"]


@dataclass(frozen=True)
class DemoSize:
    """Number of images of each kind.

    Attributes:
        train: images in the training split of the detection set.
        test: images in the test split of the detection set.
        class_train: images per class in the training split of the classification set.
        class_test: images per class in the test split of the classification set.
        new: images of several digits for prediction.
        class_new: images of one digit for prediction.
    """

    train: int = 120
    test: int = 40
    class_train: int = 60
    class_test: int = 20
    new: int = 8
    class_new: int = 10


@dataclass(frozen=True)
class DemoSets:
    """Folders of the demonstration data.

    Attributes:
        detection: detection set in VOC layout with splits train and test.
        classification: class folders with splits train and test.
        new: images of several digits for prediction.
        class_new: images of one digit for prediction.
    """

    detection: Path
    classification: Path
    new: Path
    class_new: Path


def write_demo_data(
    folder: Path, seed: int = 0, size: DemoSize | None = None, *, quiet: bool = False
) -> DemoSets:
    """Write all images of the demonstration.

    Args:
        folder: the target folder; existing files of the same names are replaced.
        seed: the seed.
        size: numbers of images; ``DemoSize()`` by default.
        quiet: whether to hide progress bars.

    Returns:
        The folders of the data sets.
    """
    size = size or DemoSize()
    sets = DemoSets(folder / "detection", folder / "classification", folder / "new", folder / "new-classify")
    detection: tuple[tuple[SplitName, int], ...] = (("train", size.train), ("test", size.test))
    for split, count in detection:
        images = track(detection_images(split, count, seed), f"Images, {split}", count, quiet=quiet)
        items = ((f"{split}-{i:04d}", np.asarray(p.image), p.truth) for i, p in enumerate(images))
        write_voc(sets.detection, items, split)
    classification: tuple[tuple[SplitName, int], ...] = (
        ("train", size.class_train),
        ("test", size.class_test),
    )
    for split, count in classification:
        total = count * len(DIGIT_NAMES)
        images = track(class_images(split, total, seed), f"Digits, {split}", total, quiet=quiet)
        for i, image in enumerate(images):
            class_folder = sets.classification / split / DIGIT_NAMES[int(image.truth.labels[0])]
            _save(image.image, class_folder / f"{split}-{i:04d}.jpg")
    for i, image in enumerate(detection_images("new", size.new, seed)):
        _save(image.image, sets.new / f"new-{i}.jpg")
    for i, image in enumerate(class_images("new", size.class_new, seed)):
        _save(image.image, sets.class_new / f"digit-{i}.jpg")
    return sets


def _save(image: Image.Image, path: Path) -> None:
    make_folder(path.parent)
    with replacing(path) as stream:
        image.save(stream, "JPEG", quality=95)

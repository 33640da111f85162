"""The demonstration's data sets, made from a seed and what scikit-learn brings; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sppnet.data import write_voc
from sppnet.files import make_folder, replacing
from sppnet.progress import track
from sppnet.recipes.digits import DIGIT_NAMES, PartName, class_images, detection_images

__all__ = ["DemoSets", "DemoSize", "write_demo_data"]


@dataclass(frozen=True)
class DemoSize:
    """How many images there are.

    Attributes:
        train: images of the detection set to learn from.
        test: images of the detection set to evaluate on.
        class_train: images a class of the classification set to learn from.
        class_test: images a class of the classification set to evaluate on.
        new: images of several digits to predict on.
        class_new: images of one digit to predict on.
    """

    train: int = 120
    test: int = 40
    class_train: int = 60
    class_test: int = 20
    new: int = 8
    class_new: int = 10


@dataclass(frozen=True)
class DemoSets:
    """Where the demonstration's images lie.

    Attributes:
        detection: VOC layout, splits train and test.
        classification: class folders, splits train and test.
        new: a folder of images of several digits, in no data set.
        class_new: a folder of images of one digit, in no data set.
    """

    detection: Path
    classification: Path
    new: Path
    class_new: Path


def write_demo_data(
    folder: Path, seed: int = 0, size: DemoSize | None = None, *, quiet: bool = False
) -> DemoSets:
    """Make all of the demonstration's images.

    Args:
        folder: where to; made where missing, and what lies there under the same names is replaced.
        seed: decides everything.
        size: how many images; ``DemoSize()`` when None.
        quiet: no progress bars.
    """
    size = size or DemoSize()
    sets = DemoSets(folder / "detection", folder / "classification", folder / "new", folder / "new-classify")
    detection: tuple[tuple[PartName, int], ...] = (("train", size.train), ("test", size.test))
    for part, count in detection:
        images = track(detection_images(part, count, seed), f"Images, {part}", count, quiet=quiet)
        items = ((f"{part}-{i:04d}", np.asarray(p.image), p.truth) for i, p in enumerate(images))
        write_voc(sets.detection, items, part)
    classification: tuple[tuple[PartName, int], ...] = (
        ("train", size.class_train),
        ("test", size.class_test),
    )
    for part, count in classification:
        whole = count * len(DIGIT_NAMES)
        images = track(class_images(part, whole, seed), f"Digits, {part}", whole, quiet=quiet)
        for i, image in enumerate(images):
            home = sets.classification / part / DIGIT_NAMES[int(image.truth.labels[0])]
            _save(image.image, home / f"{part}-{i:04d}.jpg")
    for i, image in enumerate(detection_images("new", size.new, seed)):
        _save(image.image, sets.new / f"new-{i}.jpg")
    for i, image in enumerate(class_images("new", size.class_new, seed)):
        _save(image.image, sets.class_new / f"digit-{i}.jpg")
    return sets


def _save(image: Image.Image, path: Path) -> None:
    make_folder(path.parent)
    with replacing(path) as stream:
        image.save(stream, "JPEG", quality=95)

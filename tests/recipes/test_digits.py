from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from sppnet.recipes import digits
from sppnet.recipes.digits import SPLITS, DemoImage, SplitName, class_images, detection_images

MAKERS = (detection_images, class_images)


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_splits_share_neither_digits_nor_training_pixels() -> None:
    for one, other in itertools.combinations(SPLITS.values(), 2):
        assert set(range(*one.digits)).isdisjoint(range(*other.digits))
    for split in ("test", "new"):
        assert not overlap(SPLITS["train"].region, SPLITS[split].region)


def test_training_images_share_neither_digits_nor_crops_with_other_images() -> None:
    drawn = {split: [p for make in MAKERS for p in make(split, 12, 5)] for split in SPLITS}
    for split in ("test", "new"):
        digits = [{d for p in images for d in p.digits} for images in (drawn["train"], drawn[split])]
        assert min(map(len, digits)) > 20
        assert digits[0].isdisjoint(digits[1])
        assert not any(
            a.photograph == b.photograph and overlap(a.crop, b.crop)
            for a in drawn["train"]
            for b in drawn[split]
        )


@pytest.mark.parametrize("split", list(SPLITS))
def test_detection_images(split: SplitName) -> None:
    images = list(detection_images(split, 25, 1))
    assert len({p.truth.boxes.size for p in images}) > 15, "images of many shapes"
    counts = [len(p.truth) for p in images]
    assert min(counts) >= 3
    assert max(counts) <= 9
    for image in images:
        size = image.truth.boxes.size
        assert image.image.size == (size.width, size.height)
        assert 280 <= size.short_side <= max(size.height, size.width) <= 480
        sides = image.truth.boxes.xyxy[:, 2:] - image.truth.boxes.xyxy[:, :2]
        assert sides[:, 1].min() >= 20
        assert sides.max() <= 200
        assert bool((image.truth.boxes.clip().xyxy == image.truth.boxes.xyxy).all())
        boxes = image.truth.boxes.xyxy.tolist()
        for a, b in itertools.combinations(boxes, 2):
            inner = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
            assert inner / (sum(areas) - inner) < 0.15


def test_labels_are_the_digits() -> None:
    from sklearn.datasets import load_digits

    target = load_digits().target
    for image in itertools.chain(detection_images("test", 10, 2), class_images("test", 20, 2)):
        assert image.truth.labels.tolist() == target[list(image.digits)].tolist()


def test_boxes_are_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """White digits on a black background: the boxes bound the bright pixels."""

    def black(rng: object, split: object, size: digits.ImageSize) -> object:
        return np.zeros((size.height, size.width, 3), np.float32), 0, (0, 0, 1, 1)

    def white(rng: object, canvas: digits.Pixels, mask: digits.Pixels, corner: tuple[int, int]) -> None:
        x, y = corner
        canvas[y : y + mask.shape[0], x : x + mask.shape[1]] += mask[..., None]

    monkeypatch.setattr(digits, "_backdrop", black)
    monkeypatch.setattr(digits, "_paste", white)
    for image in class_images("train", 30, 3):
        bright = np.asarray(image.image.convert("L")) > 150
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        ink = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert np.abs(image.truth.boxes.xyxy[0].numpy() - ink).max() <= 2


def test_digits_do_not_repeat_before_all_have_been_used() -> None:
    used = Counter(d for p in detection_images("train", 30, 0) for d in p.digits)
    assert max(used.values()) == 1


def test_classes_alternate() -> None:
    labels = [int(p.truth.labels[0]) for p in class_images("new", 30, 0)]
    assert labels == [*range(10)] * 3


def same(a: DemoImage, b: DemoImage) -> bool:
    return a.image.tobytes() == b.image.tobytes() and a.digits == b.digits


@pytest.mark.parametrize("make", MAKERS)
def test_images_depend_on_the_seed_only(make: Callable[..., Iterator[DemoImage]]) -> None:
    first, again, other = (list(make("train", 4, seed)) for seed in (0, 0, 1))
    assert all(map(same, first, again))
    assert not any(map(same, first, other))

from __future__ import annotations

from pathlib import Path

import pytest

from sppnet.data import find_images, read_classification, read_detection, read_image, splits
from sppnet.recipes.demo_data import DemoSets, DemoSize, write_demo_data
from sppnet.recipes.digits import DIGIT_NAMES, detection_images

SIZE = DemoSize(train=4, test=2, class_train=2, class_test=1, new=2, class_new=3)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> DemoSets:
    return write_demo_data(tmp_path_factory.mktemp("demo"), 7, SIZE, quiet=True)


def test_the_detection_set_is_readable(sets: DemoSets) -> None:
    assert set(splits(sets.detection)) == {"train", "test"}
    for split, count in (("train", 4), ("test", 2)):
        read = read_detection(sets.detection, split)
        assert set(read.names) <= set(DIGIT_NAMES)
        for item, made in zip(read.items, detection_images(split, count, 7), strict=True):
            assert item.truth.boxes.xyxy.tolist() == made.truth.boxes.xyxy.tolist()
            names = [item.truth.names[label] for label in item.truth.labels.tolist()]
            assert names == [DIGIT_NAMES[label] for label in made.truth.labels.tolist()]
            assert list(read_image(item.path).shape[1:]) == [made.image.height, made.image.width]


def test_the_classification_set_is_readable(sets: DemoSets) -> None:
    for split, count in (("train", 2), ("test", 1)):
        read = read_classification(sets.classification, split)
        assert read.names == DIGIT_NAMES
        labels = [item.label for item in read.items]
        assert sorted(labels) == sorted(list(range(10)) * count)


def test_new_images(sets: DemoSets) -> None:
    assert len(find_images([sets.new])) == 2
    assert len(find_images([sets.class_new])) == 3


def test_files_depend_on_the_seed_only(sets: DemoSets, tmp_path: Path) -> None:
    write_demo_data(tmp_path, 7, SIZE, quiet=True)
    root = sets.detection.parent
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    assert len(files) > 40
    for name in files:
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes()

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sppnet.data import (
    classification_for,
    default_split,
    detection_for,
    read_classification,
    read_detection,
    recognise,
    splits,
)
from sppnet.errors import UserError

Make = Callable[..., Path]


def test_an_unknown_layout_is_refused(tmp_path: Path, image: Make, text: Make) -> None:
    with pytest.raises(UserError, match="an empty folder"):
        recognise(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        recognise(tmp_path / "missing")
    file = text(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="got a file"):
        recognise(file)
    with pytest.raises(UserError, match=r"JPEGImages.*annotations/\*\.json.*data\.yaml.*got none of these"):
        recognise(tmp_path)
    image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="got images without labels"):
        recognise(tmp_path)


def test_an_explicit_layout(tmp_path: Path, voc: Make, image: Make) -> None:
    root = voc(tmp_path, {"a": [("cat", 1, 1, 9, 9)]})
    assert read_detection(root, layout="voc").layout == "voc"
    with pytest.raises(UserError, match="one of voc, coco, yolo, folders, got 'pascal'"):
        read_detection(root, layout="pascal")
    with pytest.raises(UserError, match=r"a data\.yaml, or the folders images and labels"):
        read_detection(root, layout="yolo")
    with pytest.raises(UserError, match="images, annotations and categories, got none"):
        read_detection(root, layout="coco")
    with pytest.raises(UserError, match="no such folder"):
        splits(tmp_path / "missing", "voc")
    other = tmp_path / "other"
    image(other / "x" / "a.jpg")
    with pytest.raises(UserError, match="Annotations and JPEGImages"):
        read_detection(other, layout="voc")


def test_a_layout_of_the_other_task_is_refused(tmp_path: Path, voc: Make, image: Make) -> None:
    with pytest.raises(UserError, match="boxes in VOC layout"):
        read_classification(voc(tmp_path / "voc", {"a": []}))
    for name in ("dog/b.jpg", "cat/c.jpg"):
        image(tmp_path / "folders" / name)
    with pytest.raises(UserError, match="class folders"):
        read_detection(tmp_path / "folders")


@pytest.mark.parametrize(
    ("there", "fit", "evaluate"),
    [
        (("train", "val", "test", "trainval"), "train", "val"),
        (("trainval", "test"), "trainval", "test"),
        (("mine",), "mine", "mine"),
        (("val",), None, "val"),
        (("train",), "train", None),
        (("one", "two"), None, None),
    ],
)
def test_default_splits(
    tmp_path: Path, voc: Make, there: tuple[str, ...], fit: str | None, evaluate: str | None
) -> None:
    root = voc(tmp_path, {"a": []}, dict.fromkeys(there, "a\n"))
    for purpose, wanted in (("fit", fit), ("evaluate", evaluate)):
        if wanted is None:
            with pytest.raises(UserError, match=", ".join(sorted(there))):
                default_split(root, purpose)
        else:
            assert default_split(root, purpose) == wanted


def test_an_ambiguous_split_is_not_guessed(tmp_path: Path, voc: Make) -> None:
    root = voc(tmp_path, {"a": []}, {"train2012": "a\n", "train2017": "a\n"})
    assert read_detection(root, "train2012").split == "train2012"
    for split in ("train", None):
        with pytest.raises(UserError, match="train2012, train2017"):
            read_detection(root, split)


def test_boxes_with_the_class_numbers_of_a_detector(tmp_path: Path, voc: Make) -> None:
    objects = {"a": [("cat", 1, 1, 9, 9), ("ant", 1, 1, 5, 5)], "b": [("bee", 1, 1, 5, 5)]}
    data = read_detection(voc(tmp_path, objects, {"val": "a\n", "rest": "b\n"}), "val")
    assert data.names == ("ant", "bee", "cat")
    changed = detection_for(data, ("dog", "cat", "ant"))
    assert changed.names == changed.items[0].truth.names == ("dog", "cat", "ant")
    assert changed.items[0].truth.labels.tolist() == [1, 2]
    assert changed.category_ids == (4, 3, 1)
    with pytest.raises(UserError, match="only the classes dog, cat, got also ant"):
        detection_for(data, ("dog", "cat"))


def test_images_with_the_class_numbers_of_a_classifier(tmp_path: Path, image: Make) -> None:
    for name in ("dog/b.jpg", "cat/c.jpg"):
        image(tmp_path / name)
    data = read_classification(tmp_path)
    changed = classification_for(data, ("dog", "emu", "cat"))
    assert [item.label for item in changed.items] == [2, 0]
    with pytest.raises(UserError, match="also cat"):
        classification_for(data, ("dog",))

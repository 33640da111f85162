"""Layouts that are recognised, and folders that are never taken for classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sppnet.data import read_classification, read_detection, recognise, splits
from sppnet.errors import UserError

Make = Callable[..., Path]
XML = (
    "<annotation><filename>{}.jpg</filename><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
    "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
YOLO = "0 0.5 0.5 0.2 0.2\n"


@pytest.mark.parametrize(
    ("images", "labels", "content", "layout", "there"),
    [
        ("", "", XML, "voc", ()),
        ("train", "train", XML, "voc", ("train", "valid")),
        ("images", "annotations", XML, "voc", ()),
        ("Images", "Annotations", XML, "voc", ()),
        ("images", "xmls", XML, "voc", ()),
        ("train/images", "train/annotations", XML, "voc", ("train", "valid")),
        ("images/train", "annotations/train", XML, "voc", ("train", "valid")),
        ("", "", YOLO, "yolo", ()),
        ("train", "train", YOLO, "yolo", ("train", "valid")),
        ("images/train", "labels/train", YOLO, "yolo", ("train", "valid")),
    ],
)
def test_labels_beside_images_and_in_folders(
    tmp_path: Path,
    image: Make,
    text: Make,
    images: str,
    labels: str,
    content: str,
    layout: str,
    there: tuple[str, ...],
) -> None:
    for split in there or ("",):
        for name in "ab":
            ending = ".xml" if layout == "voc" else ".txt"
            image(tmp_path / images.replace("train", split) / f"{name}.jpg")
            text(tmp_path / labels.replace("train", split) / f"{name}{ending}", content.format(name))
    assert recognise(tmp_path) == layout
    assert splits(tmp_path) == there
    for split in there or (None,):
        data = read_detection(tmp_path, split)
        assert [len(item.truth) for item in data.items] == [1, 1]
        assert data.notes == ()
        if split:
            assert all(split in item.path.parts for item in data.items)
    with pytest.raises(UserError, match="boxes in"):
        read_classification(tmp_path)


@pytest.mark.parametrize(
    ("names", "got"),
    [
        (("images/a.jpg", "masks/a.png"), "the folders images, masks"),
        (("images/a.jpg", "annotations/notes.md"), "the folders annotations, images"),
        (("train/a.jpg", "valid/b.jpg", "test/c.jpg"), "images without classes or labels in the folders"),
        (("Train/a.jpg", "VAL/b.jpg"), "images without classes or labels in the folders"),
        (("train/images/a.jpg", "train/masks/a.png"), "the folders train/images, train/masks"),
        (("train/cat/a.jpg", "train/labels/a.jpg"), "the folders train/labels"),
        (("cat/a.jpg", "dog/b.jpg", "dog/b.json"), r"JSON files next to images \(dog/b\.json\)"),
        (("cat/a.jpg", "cat/a.txt", "dog/b.jpg"), r"text files next to images \(cat/a\.txt\)"),
    ],
)
def test_folders_that_are_not_classes(
    tmp_path: Path, image: Make, text: Make, names: tuple[str, ...], got: str
) -> None:
    for name in names:
        if name.endswith(("jpg", "png")):
            image(tmp_path / name)
        else:
            text(tmp_path / name, "{}")
    for read in (recognise, read_classification, splits):
        with pytest.raises(UserError, match=rf"{got}.*layout='folders'"):
            read(tmp_path)


def test_class_folders_by_name_of_the_layout(tmp_path: Path, image: Make, text: Make) -> None:
    for name in ("images/a.jpg", "masks/a.png"):
        image(tmp_path / name)
    text(tmp_path / "images" / "a.txt", "a caption")
    assert read_classification(tmp_path, layout="folders").names == ("images", "masks")


@pytest.mark.parametrize("at", ["", "train", "images", "labels", "cat"])
def test_labelme_is_refused_by_name(tmp_path: Path, image: Make, text: Make, at: str) -> None:
    content = {
        "shapes": [{"label": "cat", "points": [[1, 2], [3, 4]]}],
        "imagePath": "a.jpg",
        "imageData": None,
    }
    image(tmp_path / ("images" if at == "labels" else at) / "a.jpg")
    text(tmp_path / at / "a.json", json.dumps(content))
    if at == "labels":
        with pytest.raises(UserError, match="a label file for at least one"):
            read_detection(tmp_path)
        return
    for read in (recognise, read_detection, read_classification):
        with pytest.raises(UserError, match=r"got labelme JSON \(a\.json\), which is not supported"):
            read(tmp_path)


def test_nested_folders_and_other_types_in_class_folders_are_counted(tmp_path: Path, image: Make) -> None:
    for name in ("cat/a.jpg", "dog/b.jpg", "dog/more/c.jpg"):
        image(tmp_path / name)
    (tmp_path / "cat" / "d.HEIC").touch()
    assert read_classification(tmp_path).notes == (
        "1 folder inside class folders left out: dog/more",
        "1 file of unsupported types left out (1 .heic)",
    )

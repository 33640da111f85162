from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sppnet.data import check_images, default_split, read_detection, recognise, splits
from sppnet.errors import UserError
from sppnet.structures import ImageSize

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "bccd"
Make = Callable[..., Path]


def test_boxes_lose_the_one_of_their_first_pixel(tmp_path: Path, voc: Make) -> None:
    root = voc(tmp_path, {"a": [("cat", 1, 1, 40, 30), ("ant", 5, 6, 5, 6), ("cat", 2.5, 3, 9.25, 10)]})
    assert recognise(root) == "voc"
    data = read_detection(root)
    assert (data.layout, data.split, data.names, data.category_ids) == ("voc", "", ("ant", "cat"), (1, 2))
    [item] = data.items
    assert (item.key, item.path) == ("a", root / "JPEGImages" / "a.jpg")
    assert item.truth.boxes.xyxy.tolist() == [[0, 0, 40, 30], [4, 5, 5, 6], [1.5, 2, 9.25, 10]]
    assert item.truth.boxes.size == ImageSize(30, 40)
    assert item.truth.labels.tolist() == [1, 0, 1]
    assert not item.truth.crowd.any()


def test_class_numbers_are_the_same_in_every_split(tmp_path: Path, voc: Make) -> None:
    objects = {"a": [("cat", 1, 1, 9, 9)], "b": [("ant", 1, 1, 9, 9)], "c": []}
    root = voc(tmp_path, objects, {"train": "a\n", "val": "b\nc\n"})
    assert splits(root) == ("train", "val")
    train, val = read_detection(root, "train"), read_detection(root, "val")
    assert train.names == val.names == ("ant", "cat")
    assert [item.truth.labels.tolist() for item in (*train.items, *val.items)] == [[1], [0], []]
    assert default_split(root, "fit") == "train"
    assert default_split(root, "evaluate") == "val"


def test_lists_of_a_class_are_not_splits(tmp_path: Path, voc: Make) -> None:
    lists = {
        "trainval": "a\n",
        "test": "b\n",
        "cat_trainval": "a  1\n",
        "cat_test": "b -1\n",
        "my_test": "a\n",
    }
    root = voc(tmp_path, {"a": [("cat", 1, 1, 9, 9)], "b": []}, lists)
    assert splits(root) == ("my_test", "test", "trainval")
    assert read_detection(root).split == "trainval"
    assert default_split(root, "evaluate") == "test"


def test_difficult_and_parts(tmp_path: Path, voc: Make, text: Make) -> None:
    root = voc(tmp_path, {"a": []})
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    part = f"<part><name>head</name>{box}</part>"
    content = "".join(
        f"<object>{part}<name>man</name><difficult>{flag}</difficult>{box}</object>" for flag in "01"
    )
    text(root / "Annotations" / "a.xml", f"<annotation>{content}</annotation>")
    data = read_detection(root)
    assert data.names == ("man",)
    assert data.items[0].truth.difficult.tolist() == [False, True]


def test_a_parent_folder_with_one_or_several_data_sets(tmp_path: Path, voc: Make) -> None:
    voc(tmp_path / "VOCdevkit" / "VOC2007", {"a": [("cat", 1, 1, 9, 9)]})
    assert recognise(tmp_path) == recognise(tmp_path / "VOCdevkit") == "voc"
    assert len(read_detection(tmp_path)) == len(read_detection(tmp_path / "VOCdevkit")) == 1
    voc(tmp_path / "VOCdevkit" / "VOC2012", {"b": []})
    with pytest.raises(UserError, match="VOC2007, VOC2012"):
        read_detection(tmp_path)


def test_a_box_that_exceeds_the_image_by_a_pixel_is_clipped(tmp_path: Path, voc: Make) -> None:
    root = voc(tmp_path, {"a": [("cat", 0, 0, 41, 31)]})
    assert read_detection(root).items[0].truth.boxes.xyxy.tolist() == [[0, 0, 40, 30]]


@pytest.mark.parametrize(
    ("box", "got"),
    [
        ((1, 1, 42, 30), "xmax 42"),
        ((-1, 1, 9, 9), "xmin -1"),
        ((1, 1, 9, 32), "ymax 32"),
        ((41, 1, 41, 9), "xmin 41"),
        ((20, 1, 9, 9), "xmin 20"),
        ((1, "nan", 9, 9), "ymin nan"),
        ((1, "x", 9, 9), "ymin x"),
        ((1, "", 9, 9), "ymin"),
    ],
)
def test_a_wrong_box_names_file_and_object(
    tmp_path: Path, voc: Make, box: tuple[object, ...], got: str
) -> None:
    root = voc(tmp_path, {"a": [("ant", 1, 1, 2, 2), ("cat", *box)]})
    with pytest.raises(UserError, match=got) as caught:
        read_detection(root)
    assert f"{root / 'Annotations' / 'a.xml'}, object 2 (cat)" in str(caught.value)


def test_the_size_of_the_image_has_priority(tmp_path: Path, voc: Make, image: Make, text: Make) -> None:
    root = voc(tmp_path, {"a": []})
    size = "<size><width>{}</width><height>{}</height></size>"
    for width, height in ((0, 0), (7, 7), (30, 40)):
        text(root / "Annotations" / "a.xml", f"<annotation>{size.format(width, height)}</annotation>")
        assert read_detection(root).items[0].truth.boxes.size == ImageSize(30, 40)
    # Turned by EXIF, a stated size that is the one before turning means boxes on the unturned image.
    image(root / "JPEGImages" / "a.jpg", orientation=6)
    text(root / "Annotations" / "a.xml", f"<annotation>{size.format(30, 40)}</annotation>")
    assert read_detection(root).items[0].truth.boxes.size == ImageSize(40, 30)
    text(root / "Annotations" / "a.xml", f"<annotation>{size.format(40, 30)}</annotation>")
    with pytest.raises(UserError, match="before its EXIF rotation, 40 x 30"):
        read_detection(root)


def test_missing_and_broken_files(tmp_path: Path, voc: Make, text: Make) -> None:
    root = voc(tmp_path, {"a": [("cat", 1, 1, 9, 9)]}, {"train": "a\nb\n", "val": "\n"})
    with pytest.raises(UserError, match=r"b\.xml: expected the annotation of b .*, got no such file"):
        read_detection(root, "train")
    with pytest.raises(UserError, match="expected images in the split val, got none"):
        read_detection(root, "val")
    with pytest.raises(UserError, match="one of the splits train, val, got 'night'"):
        read_detection(root, "night")
    text(root / "Annotations" / "b.xml", "<annotation></annotation>")
    with pytest.raises(UserError, match=r"its image, .*b\.jpg"):
        read_detection(root, "train")
    for content, got in [
        ("<annotation>", "well-formed XML"),
        ("", "well-formed XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "without entities"),
        ("<annotation><object></object></annotation>", r"b\.xml, object 1: expected a class name"),
    ]:
        text(root / "Annotations" / "b.xml", content)
        with pytest.raises(UserError, match=got):
            read_detection(root, "train")


def test_a_corrupt_image_has_no_objects_until_it_is_checked(tmp_path: Path, voc: Make) -> None:
    root = voc(tmp_path, {"a": []})
    (root / "JPEGImages" / "a.jpg").write_bytes(b"nonsense")
    (item,) = read_detection(root).items
    assert len(item.truth) == 0
    assert check_images([item.path]) == [(item.path, "expected an image, got a file of unknown type")]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the blood images are not beside the repository")
def test_real_blood_images() -> None:
    train, val = read_detection(SHARED), read_detection(SHARED, "val")
    assert (train.split, len(train), len(val)) == ("train", 205, 87)
    assert train.names == ("Platelets", "RBC", "WBC")
    counts = [sum(int((i.truth.labels == k).sum()) for s in (train, val) for i in s.items) for k in range(3)]
    assert counts == [292, 3350, 301]

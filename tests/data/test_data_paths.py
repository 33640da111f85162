"""File names of other machines and systems, and lists in every spelling."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sppnet.data import read_detection, splits
from sppnet.errors import UserError
from sppnet.structures import DetectionSet

Make = Callable[..., Path]


def coco(root: Path, names: list[str], file: str = "annotations/instances_train.json") -> DetectionSet:
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))
    return read_detection(root)


@pytest.mark.parametrize(
    "name",
    [
        "sub/a.jpg",
        "sub\\a.jpg",
        "./sub/a.jpg",
        ".\\sub\\a.jpg",
        "/home/me/set/train/sub/a.jpg",
        "C:\\set\\train\\sub\\a.jpg",
        "a.jpg",
        "SUB/A.JPG",
        "elsewhere/a.jpg",
    ],
)
def test_coco_names_of_other_machines(tmp_path: Path, image: Make, name: str) -> None:
    wanted = image(tmp_path / "train" / "sub" / "a.jpg")
    assert coco(tmp_path, [name]).items[0].path == wanted


def test_a_name_that_fits_several_files_is_refused(tmp_path: Path, image: Make) -> None:
    for folder in ("one", "two"):
        image(tmp_path / "train" / folder / "a.jpg")
    assert coco(tmp_path, ["C:\\x\\two\\a.jpg"]).items[0].path.parent.name == "two"
    with pytest.raises(UserError, match=r"one file for three/a\.jpg, got .*one.*two"):
        coco(tmp_path, ["three/a.jpg"])


def test_images_of_another_split_are_not_read(tmp_path: Path, image: Make) -> None:
    image(tmp_path / "val" / "a.jpg")
    with pytest.raises(UserError, match=r"the image /x/train/a\.jpg in one of .*no such file"):
        coco(tmp_path, ["/x/train/a.jpg"])


def test_all_missing_images_are_named(tmp_path: Path, image: Make) -> None:
    image(tmp_path / "train" / "a.jpg")
    with pytest.raises(UserError, match=r"the 3 images b\.jpg, c\.jpg, d\.jpg in"):
        coco(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])


@pytest.mark.parametrize("folder", ["Train", "TRAIN", "train2017"])
def test_split_folders_in_capitals(tmp_path: Path, image: Make, folder: str) -> None:
    image(tmp_path / "coco" / folder / "a.jpg")
    assert len(coco(tmp_path / "coco", ["a.jpg"])) == 1
    for name in (f"{folder[:5]}/images/a.jpg", "VALID/images/b.jpg"):
        image(tmp_path / "yolo" / name)
        label = (tmp_path / "yolo" / name.replace("images", "labels")).with_suffix(".txt")
        label.parent.mkdir(parents=True)
        label.write_text("0 .5 .5 .1 .1\n")
    assert splits(tmp_path / "yolo") == (folder[:5], "VALID")
    assert read_detection(tmp_path / "yolo", "val").items[0].key == "b"


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a.jpg",
        "a.JPG",
        "a.xml",
        "a 1",
        "a  -1",
        "a\t0",
        "'a'",
        '"a.jpg"',
        "JPEGImages/a.jpg",
        ".\\JPEGImages\\a.jpg",
        "/data/VOC/JPEGImages/a.jpg",
        "a   ",
        "\ufeffa",
    ],
)
def test_lines_of_voc_lists(tmp_path: Path, voc: Make, line: str) -> None:
    root = voc(tmp_path, {"a": [("cat", 1, 1, 9, 9)], "b b": []}, {"train": ""})
    path = root / "ImageSets" / "Main" / "train.txt"
    path.write_bytes(f"{line}\r\nb b\r\n\r\n".encode())
    assert [item.key for item in read_detection(root, "train").items] == ["a", "b b"]


def test_an_image_that_a_list_names_twice_is_read_once(tmp_path: Path, voc: Make) -> None:
    root = voc(tmp_path, {"a": [("cat", 1, 1, 9, 9)], "b": []}, {"train": "a\nb\na.jpg\n"})
    data = read_detection(root, "train")
    assert [item.key for item in data.items] == ["a", "b"]
    assert data.notes == ("1 image listed twice in train.txt read once: a",)


def test_capital_endings(tmp_path: Path, voc: Make) -> None:
    root = voc(tmp_path, {"a": [("cat", 1, 1, 9, 9)]})
    (root / "Annotations" / "a.xml").rename(root / "Annotations" / "a.XML")
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "a.JPG")
    assert len(read_detection(root).items[0].truth) == 1


@pytest.mark.parametrize(
    "line",
    [
        "./images/train/a.jpg",
        "images\\train\\a.jpg",
        "D:\\old\\images\\train\\a.jpg",
        "/old/set/images/train/a.jpg",
    ],
)
def test_lines_of_yolo_lists(tmp_path: Path, image: Make, line: str) -> None:
    image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_bytes(b"\xef\xbb\xbf0 .5 .5 .1 .1\r\n\r\n")
    (tmp_path / "train.txt").write_text(f"{line}\n./images/train/a.jpg\n")
    (tmp_path / "data.yaml").write_bytes("train: train.txt\nnames: [cat]\n".encode("utf-16"))
    data = read_detection(tmp_path)
    assert [len(item.truth) for item in data.items] == [1]
    assert data.notes == ("1 image listed twice read once: a.jpg",)
    (tmp_path / "train.txt").write_text("gone/b.jpg\ngone/c.jpg\n")
    with pytest.raises(UserError, match=r"the 2 images gone/b\.jpg, gone/c\.jpg"):
        read_detection(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"<annotation encoding='x'>\xe9</annotation>",
        b"\xff\xfe<\0",
        b"<a>" * 30000,
        b"<?xml version='1.0' encoding='klingon'?><annotation/>",
    ],
)
def test_invalid_xml_is_refused(tmp_path: Path, voc: Make, content: bytes) -> None:
    root = voc(tmp_path, {"a": []})
    (root / "Annotations" / "a.xml").write_bytes(content)
    with pytest.raises(UserError, match="well-formed XML"):
        read_detection(root)


def test_other_encodings(tmp_path: Path, voc: Make) -> None:
    root = voc(tmp_path, {"a": [("dög", 1, 1, 9, 9)]}, {"train": "a\n"})
    path = root / "Annotations" / "a.xml"
    text = path.read_text()
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(text.encode(encoding))
        assert read_detection(root).names == ("dög",)
    path.write_bytes(f"<?xml version='1.0' encoding='latin-1'?>{text}".encode("latin-1"))
    assert read_detection(root).names == ("dög",)
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xe9\n")
    with pytest.raises(UserError, match=r"text in UTF-8.*Save the file in UTF-8"):
        read_detection(root, "train")


def test_errors_of_the_file_system_are_reported(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (loop, tmp_path / ("n" * 300), Path("a\0b")):
        with pytest.raises(UserError, match="no such folder"):
            read_detection(path)

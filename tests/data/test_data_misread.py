"""Labels that were once misread without a word: now as written, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sppnet.data import read_detection
from sppnet.errors import UserError

Make = Callable[..., Path]
BOX = [4, 6, 10, 12]


@pytest.fixture
def coco(image: Make) -> Callable[..., Path]:
    """A COCO data set of images 40 x 30, from the three lists and with the images' places."""

    def make(
        root: Path,
        images: list[dict[str, Any]],
        objects: list[dict[str, Any]],
        categories: list[dict[str, Any]] | None = None,
        at: tuple[str, ...] = ("train/a.jpg", "train/b.jpg"),
    ) -> Path:
        content = {
            "images": images,
            "annotations": objects,
            "categories": categories or [{"id": 3, "name": "cat"}],
        }
        (root / "annotations").mkdir(parents=True)
        (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
        for name in at:
            image(root / name)
        return root

    return make


def pair(a: object = 1, b: object = 2) -> list[dict[str, Any]]:
    return [{"id": a, "file_name": "a.jpg"}, {"id": b, "file_name": "b.jpg"}]


def one(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 3, "bbox": BOX} | changes


@pytest.mark.parametrize(
    ("images", "objects", "got"),
    [
        (pair(1, 1), [], r"each image id once, got 1 for 'a\.jpg' and for 'b\.jpg'"),
        (pair(1, "1"), [], r"each image id once, got '1' for 'a\.jpg' and for 'b\.jpg'"),
        (pair(), [one(), one(image_id=2)], r"each annotation id once, .*'a\.jpg' .* 'b\.jpg'"),
        ([pair()[0], pair()[0] | {"id": 2}], [], r"each file_name once, got 'a\.jpg' for the ids 1 and 2"),
        (
            [*pair(), {"id": 3, "file_name": "./a.jpg"}],
            [],
            r"one entry for the image, got entries for 'a\.jpg' and",
        ),
        (pair([1], 2), [], "a whole number or a text as id, got \\[1\\]"),
        (pair(10**400, 2), [], "got a number of more than 64 bits"),
        (pair(True, 2), [], "got True"),
        (pair(), [one(iscrowd="maybe")], "iscrowd: expected 0 or 1, true or false, got 'maybe'"),
        (pair(), [one(bbox=[0, 0, 10**400, 1])], "a bbox"),
        (pair(), [one(bbox=[0, 0, "1e400", 1])], "a bbox"),
        (pair(), [one(bbox=[0, 0, True, 1])], "a bbox"),
    ],
)
def test_coco_refuses_ambiguous_entries(
    tmp_path: Path, coco: Make, images: list[dict[str, Any]], objects: list[dict[str, Any]], got: str
) -> None:
    with pytest.raises(UserError, match=got):
        read_detection(coco(tmp_path, images, objects))


@pytest.mark.parametrize(
    ("value", "crowd"),
    [
        *[(value, False) for value in (0, "0", "false", "No", False, None, 0.0, "0.0", "")],
        *[(value, True) for value in (1, "1", "TRUE", "yes", True, 1.0)],
    ],
)
def test_flags_in_every_form(tmp_path: Path, coco: Make, voc: Make, value: object, crowd: bool) -> None:
    data = read_detection(coco(tmp_path / "coco", pair(), [one(iscrowd=value)]))
    assert data.items[0].truth.crowd.tolist() == [crowd]
    root = voc(tmp_path / "voc", {"a": [("cat", 1, 1, 9, 9)]})
    path = root / "Annotations" / "a.xml"
    text = "" if value is None else str(value)
    path.write_text(path.read_text().replace("<bndbox>", f"<difficult>{text}</difficult><bndbox>"))
    assert read_detection(root).items[0].truth.difficult.tolist() == [crowd]


def test_ids_keep_their_type(tmp_path: Path, coco: Make) -> None:
    categories = [{"id": "3", "name": "cat"}, {"id": "x", "name": "dog"}]
    data = read_detection(coco(tmp_path, pair("7", "b"), [one(image_id=7, category_id=3)], categories))
    assert data.category_ids == ("3", "x")
    assert [item.image_id for item in data.items] == ["7", "b"]
    assert data.items[0].truth.labels.tolist() == [0]


def test_categories_of_one_name_have_the_used_id_and_a_note(tmp_path: Path, coco: Make) -> None:
    categories = [{"id": 0, "name": "cat"}, {"id": 3, "name": "cat"}, {"id": 5, "name": "cat "}]
    data = read_detection(coco(tmp_path, pair(), [one()], categories))
    assert (data.names, data.category_ids) == (("cat",), (3,))
    assert "1 name of several classes merged into one class: cat" in data.notes


@pytest.mark.parametrize("name", [None, "", "  ", ["cat"], True, "a\nb", "\ud800"])
def test_class_names_are_not_invented(tmp_path: Path, coco: Make, name: object) -> None:
    with pytest.raises(UserError, match="a class name"):
        read_detection(coco(tmp_path, pair(), [], [{"id": 3, "name": name}]))


NAMES = [
    "no",
    "on",
    "010",
    "12:30",
    "~",
    "null",
    "2024-01-31",
    "1.50",
    "1e3",
    "0x1F",
    "y",
    "True",
    "<<",
    "=",
    "cat",
]


@pytest.mark.parametrize("form", ["list", "block", "numbers", "quoted", "reversed"])
def test_yaml_names_are_the_text_that_was_written(tmp_path: Path, image: Make, form: str) -> None:
    names = [name for name in NAMES if form != "reversed" or not name.isdigit()]
    rows = {
        "list": "names: [" + ", ".join(names) + "]\n",
        "block": "names:\n" + "".join(f"- {name}\n" for name in names),
        "numbers": "names:\n" + "".join(f"  {number}: {name}\n" for number, name in enumerate(names)),
        "quoted": "names:\n" + "".join(f"  '{number}': \"{name}\"\n" for number, name in enumerate(names)),
        "reversed": "names:\n" + "".join(f"  {name}: {number}\n" for number, name in enumerate(names)),
    }
    image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("3 .5 .5 .1 .1\n")
    (tmp_path / "data.yaml").write_text(f"nc: {len(names)}\ntrain: images/train\nval: ~\n{rows[form]}")
    data = read_detection(tmp_path)
    assert list(data.names) == names
    assert data.items[0].truth.labels.tolist() == [3]


@pytest.mark.parametrize(
    ("yaml", "got"),
    [
        ("nc: 3\nnames: [a, b]", "3 names, as stated by nc, got 2 names"),
        ("names: {0: a, 0: b}", "the key '0' twice"),
        ("names: {0: a, 00: b}", "each class number once"),
        ("names: [a, [b]]", "a class name"),
        ("names: [a, '']", "a class name, got none"),
        ("nc: 3000000000", "1 to 10,000 classes"),
        ("names: " + "[" * 5000, "well-formed YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\nnames: [*d, *d]", "a class name"),
        ("names: !!python/object:os.system [a, b]\ntrain: {a: b}", "a folder or list of images"),
    ],
)
def test_inconsistent_yaml_is_refused(tmp_path: Path, image: Make, yaml: str, got: str) -> None:
    image(tmp_path / "images" / "train" / "a.jpg")
    prefix = "" if "train:" in yaml else "train: images/train\n"
    (tmp_path / "data.yaml").write_text(prefix + yaml + "\n")
    with pytest.raises(UserError, match=got):
        read_detection(tmp_path)


def test_classes_by_their_number_alone(tmp_path: Path, image: Make) -> None:
    image(tmp_path / "images" / "train" / "a.jpg")
    label = tmp_path / "labels" / "train" / "a.txt"
    label.parent.mkdir(parents=True)
    label.write_text("1 .5 .5 .1 .1\n")
    (tmp_path / "data.yaml").write_text("nc: 2\ntrain: images/train\n")
    assert read_detection(tmp_path).names == ("0", "1")
    (tmp_path / "data.yaml").unlink()
    for number in ("10000", "3000000000", "9" * 400):
        label.write_text(f"{number} .5 .5 .1 .1\n")
        with pytest.raises(UserError, match="a class number"):
            read_detection(tmp_path)


def test_class_lists_without_a_name_in_a_line_are_refused(tmp_path: Path, image: Make) -> None:
    image(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 .5 .5 .1 .1\n2 .5 .5 .2 .2\n")
    names = tmp_path / "classes.txt"
    names.write_text("cat\r\ndog\r\ncat\r\n\r\n")
    data = read_detection(tmp_path)
    assert (data.names, data.category_ids) == (("dog", "cat"), (1, 2))
    assert data.items[0].truth.labels.tolist() == [0, 1]
    assert data.notes == ("1 name of several classes merged into one class: cat",)
    for content, line in (("cat\n\ndog\n", 2), ("\ncat\ndog\n", 1)):
        names.write_text(content)
        with pytest.raises(UserError, match=rf"classes\.txt, line {line}: expected a class name"):
            read_detection(tmp_path)


@pytest.mark.parametrize(("width", "height"), [(80, 60), (20, 15), (13, 10), (400, 300), (401, 299)])
def test_boxes_of_images_that_were_resized_are_scaled(
    tmp_path: Path, coco: Make, voc: Make, width: int, height: int
) -> None:
    across, down = 40 / width, 30 / height
    images = pair()
    images[0] |= {"width": width, "height": height}
    box = [0.2 * width, 0.4 * height, 0.5 * width, 0.5 * height]
    data = read_detection(coco(tmp_path / "coco", images, [one(bbox=box)]))
    wanted = torch.tensor([[8.0, 12, 28, 27]])
    assert torch.allclose(data.items[0].truth.boxes.xyxy, wanted, atol=1e-4)
    assert data.notes[0].startswith(
        "1 image differs in size from the annotation; the boxes were scaled: a.jpg"
    )
    root = voc(tmp_path / "voc", {"a": [("cat", 2, 3, 6, 9)], "b": [("cat", 2, 3, 6, 9)]})
    path = root / "Annotations" / "a.xml"
    size = f"<annotation><size><width>{width}</width><height>{height}</height></size>"
    path.write_text(path.read_text().replace("<annotation>", size))
    read = read_detection(root)
    expected = torch.tensor([[1 * across, 2 * down, 6 * across, 9 * down]])
    assert torch.allclose(read.items[0].truth.boxes.xyxy, expected, atol=1e-4)
    assert read.items[1].truth.boxes.xyxy.tolist() == [[1, 2, 6, 9]]
    assert len(read.notes) == 1


@pytest.mark.parametrize(("width", "height"), [(30, 40), (80, 30), (40, 60), (7, 7), (640, 640)])
def test_a_stated_size_of_another_shape_is_refused(
    tmp_path: Path, coco: Make, width: int, height: int
) -> None:
    images = pair()
    images[0] |= {"width": width, "height": height}
    with pytest.raises(UserError, match=rf"a\.jpg, 40 x 30 .* got a stated size of {width} x {height}"):
        read_detection(coco(tmp_path / "a", images, [one(bbox=[1, 1, 2, 2])]))
    # Without objects nothing can be misplaced.
    assert len(read_detection(coco(tmp_path / "b", images, []))) == 2


def test_xml_namespaces_are_ignored(tmp_path: Path, voc: Make) -> None:
    root = voc(tmp_path, {"a": [("cat", 1, 1, 9, 9)]})
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<annotation>", "<annotation xmlns='urn:voc'>"))
    assert read_detection(root).items[0].truth.boxes.xyxy.tolist() == [[0, 0, 9, 9]]
    path.write_text("<annotations/>")
    with pytest.raises(UserError, match="a root element annotation, got the root element annotations"):
        read_detection(root)


def test_skipped_files_are_counted(tmp_path: Path, voc: Make, image: Make) -> None:
    root = voc(tmp_path / "voc", {"a": [("cat", 1, 1, 9, 9)], "b": []})
    (root / "JPEGImages" / "b.jpg").unlink()
    for name in ("c.jpg", "d.jpg"):
        image(root / "JPEGImages" / name)
    (root / "JPEGImages" / "e.HEIC").touch()
    (root / "Annotations" / "._a.xml").write_bytes(b"\0\5\x16\7")
    (root / "Annotations" / "x.xml").mkdir()
    data = read_detection(root)
    assert [item.key for item in data.items] == ["a"]
    assert data.notes == (
        "2 images without an annotation left out: c.jpg, d.jpg",
        "1 annotation without an image left out: b.xml",
        "1 file of unsupported types left out (1 .heic)",
    )
    yolo = tmp_path / "yolo"
    for name in ("a.jpg", "b.jpg"):
        image(yolo / "images" / name)
    (yolo / "images" / "e.psd").touch()
    (yolo / "labels").mkdir()
    (yolo / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    (yolo / "labels" / "z.txt").write_text("0 .5 .5 .1 .1\n")
    (yolo / "labels" / "classes.txt").write_text("cat\n")
    assert read_detection(yolo).notes == (
        "1 image without a label file read as images without objects: b.jpg",
        "1 label file without an image left out: z.txt",
        "1 file of unsupported types left out (1 .psd)",
    )


def test_images_of_one_name(tmp_path: Path, voc: Make, image: Make) -> None:
    root = voc(tmp_path / "voc", {"a": [("cat", 1, 1, 9, 9)]})
    image(root / "JPEGImages" / "a.png")
    with pytest.raises(UserError, match=r"one image of its name, got .*a\.jpg, .*a\.png"):
        read_detection(root)
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<annotation>", "<annotation><filename>a.png</filename>"))
    assert read_detection(root).items[0].path.name == "a.png"
    for name in ("images/a.jpg", "images/a.png"):
        image(tmp_path / "yolo" / name)
    (tmp_path / "yolo" / "labels").mkdir()
    (tmp_path / "yolo" / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    with pytest.raises(UserError, match=r"one image of its name, got a\.jpg and a\.png"):
        read_detection(tmp_path / "yolo")

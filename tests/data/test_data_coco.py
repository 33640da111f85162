from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sppnet.data import default_split, read_detection, recognise, splits
from sppnet.errors import UserError
from sppnet.structures import ImageSize

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "coco-tiny"
Make = Callable[..., Path]

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def content(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "info": {"categories": "none here"},
        "images": [
            {"id": 12, "file_name": "000012.jpg", "width": 40, "height": 30},
            {"id": 5, "file_name": "000005.jpg", "width": 40, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1.5, 2, 10, 20.25], "iscrowd": 0},
            {"id": 2, "image_id": 5, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
        "categories": CATEGORIES,
    }
    return base | changes


@pytest.fixture
def coco(image: Make, text: Make) -> Callable[..., Path]:
    def make(
        root: Path, file: str = "annotations/instances_train2017.json", at: str = "train2017", **changes: Any
    ):
        text(root / file, json.dumps(content(**changes)))
        for name in ("000005.jpg", "000012.jpg"):
            image(root / at / name)
        return root

    return make


def test_boxes_sparse_ids_crowds_and_empty_images(tmp_path: Path, coco: Make) -> None:
    root = coco(tmp_path)
    assert recognise(root) == "coco"
    data = read_detection(root, "train")
    assert (data.layout, data.split, data.names, data.category_ids) == (
        "coco",
        "train2017",
        ("cat", "dog"),
        (3, 7),
    )
    assert [item.key for item in data.items] == ["12", "5"]
    empty, full = data.items
    assert len(empty.truth) == 0
    assert full.path == root / "train2017" / "000005.jpg"
    assert full.truth.boxes.xyxy.tolist() == [[1.5, 2, 11.5, 22.25], [0, 0, 40, 30]]
    assert full.truth.boxes.size == ImageSize(30, 40)
    assert full.truth.labels.tolist() == [1, 0]
    assert full.truth.crowd.tolist() == [False, True]


@pytest.mark.parametrize(
    ("file", "at", "split"),
    [
        ("annotations/instances_val2017.json", "images/val2017", "val2017"),
        ("annotations/instances_val2017.json", "val", "val2017"),
        ("annotations/instances_default.json", "images", "default"),
        ("annotations/instances_default.json", ".", "default"),
        ("annotations/mine.json", "annotations", "mine"),
        ("train/_annotations.coco.json", "train", "train"),
        ("valid/_annotations.coco.json", "valid", "valid"),
        ("labels.json", "images", "labels"),
    ],
)
def test_all_locations_of_annotation_files(
    tmp_path: Path, coco: Make, file: str, at: str, split: str
) -> None:
    root = coco(tmp_path, file, at)
    assert recognise(root) == "coco"
    assert splits(root) == (split,)
    data = read_detection(root, split)
    assert data.items[0].path == root / at / "000012.jpg"
    purpose = "evaluate" if split.startswith("val") else "fit"
    assert default_split(root, purpose) == split


def test_images_of_the_split_come_before_others_of_their_name(
    tmp_path: Path, coco: Make, image: Make
) -> None:
    root = coco(tmp_path)
    coco(tmp_path, "annotations/instances_val2017.json", "val2017")
    image(root / "000005.jpg")
    for split in ("train2017", "val2017"):
        assert {item.path.parent.name for item in read_detection(root, split).items} == {split}


def test_other_kinds_of_annotations_are_not_splits(tmp_path: Path, coco: Make, text: Make) -> None:
    root = coco(tmp_path)
    text(root / "annotations" / "captions_train2017.json", "{}")
    assert splits(root) == ("train2017",)
    # Where no file is named as COCO's are, only those that hold boxes count.
    other = coco(tmp_path / "other", "annotations/a.json", "images")
    text(other / "annotations" / "captions.json", '{"images": [], "annotations": [], "info": 1}')
    assert splits(other) == ("a",)


def test_classes_of_all_splits_are_numbered_together(tmp_path: Path, coco: Make) -> None:
    root = coco(tmp_path)
    coco(
        tmp_path,
        "annotations/instances_val2017.json",
        "val2017",
        categories=[{"id": 5, "name": "cow"}],
        annotations=[{"id": 1, "image_id": 5, "category_id": 5, "bbox": [1, 1, 2, 2]}],
    )
    train, val = read_detection(root, "train"), read_detection(root, "val")
    assert train.names == val.names == ("cat", "cow", "dog")
    assert train.category_ids == val.category_ids == (3, 5, 7)
    assert val.items[1].truth.labels.tolist() == [1]
    coco(tmp_path, "annotations/instances_test2017.json", "x", categories=[{"id": 3, "name": "cow"}])
    with pytest.raises(UserError, match="of category 3"):
        read_detection(root, "train")


def test_categories_of_one_name_are_one_class(tmp_path: Path, coco: Make) -> None:
    twice = [{"id": 0, "name": "cat"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    rows = [{"id": k, "image_id": 5, "category_id": k, "bbox": [1, 1, 2, 2]} for k in range(3)]
    data = read_detection(coco(tmp_path, categories=twice, annotations=rows))
    assert (data.names, data.category_ids) == (("cat", "dog"), (1, 2))
    assert data.items[1].truth.labels.tolist() == [0, 0, 1]


def test_boxes_without_area_are_not_removed(tmp_path: Path, coco: Make) -> None:
    rows = [{"id": 1, "image_id": 5, "category_id": 3, "bbox": [4, 5, 0, 2]}]
    data = read_detection(coco(tmp_path, annotations=rows))
    assert data.items[1].truth.boxes.xyxy.tolist() == [[4, 5, 4, 7]]


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"image_id": 99}, "annotation 1: expected the image_id of one of its images, got 99"),
        ({"image_id": [5]}, "annotation 1: expected the image_id"),
        ({"category_id": 4}, "annotation 1: expected the category_id of one of its categories, got 4"),
        ({"bbox": [1, 2, 3]}, r"annotation 1: expected a bbox .*, got \[1, 2, 3\]"),
        ({"bbox": None}, "annotation 1: expected a bbox"),
        ({"bbox": [1, 2, -3, 4]}, r"annotation 1: expected a box .*, got bbox \[1, 2, -3, 4\]"),
        ({"bbox": [30, 2, 12, 4]}, "annotation 1: expected a box inside its image of 40 x 30"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path: Path, coco: Make, change: dict[str, Any], got: str) -> None:
    row = {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4]} | change
    root = coco(tmp_path, annotations=[row])
    with pytest.raises(UserError, match=got) as caught:
        read_detection(root)
    assert "instances_train2017.json" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"images": {}}, 'a list of objects under "images", got dict'),
        ({"annotations": None}, 'under "annotations", got NoneType'),
        ({"categories": []}, 'a list "categories"'),
        ({"categories": [{"id": 1}]}, "category 1: expected a class name, got none"),
        (
            {"images": [{"id": 5}], "annotations": []},
            '"file_name" in every image, got image 5 without a file_name',
        ),
        ({"images": [{"file_name": "a"}], "annotations": []}, '"id" in every image'),
        ({"images": [{"id": 5, "file_name": "no.jpg"}], "annotations": []}, r"the image no\.jpg in one of"),
        ({"images": [], "annotations": []}, "images in the split train2017, got none"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(
    tmp_path: Path, coco: Make, changes: dict[str, Any], got: str
) -> None:
    with pytest.raises(UserError, match=got):
        read_detection(coco(tmp_path, **changes))


def test_broken_json(tmp_path: Path, coco: Make, text: Make) -> None:
    root = coco(tmp_path)
    for broken, got in (('{"categories": [', "well-formed JSON"), ("[1]", "a JSON object")):
        text(root / "annotations" / "instances_train2017.json", broken)
        with pytest.raises(UserError, match=got):
            read_detection(root)


def test_a_missing_split_lists_the_existing_ones(tmp_path: Path, coco: Make) -> None:
    root = coco(tmp_path)
    for split in ("test", ""):
        with pytest.raises(UserError, match="one of the splits train2017"):
            read_detection(root, split)
    with pytest.raises(UserError, match="val or test to evaluate on, got train2017"):
        default_split(root, "evaluate")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the COCO images are not beside the repository")
def test_real_coco_images() -> None:
    train, val = read_detection(SHARED, "train"), read_detection(SHARED, "val")
    assert (train.split, val.split) == ("train2017", "val2017")
    assert (len(train), len(val), len(train.names)) == (50, 50, 80)
    assert train.category_ids[-1] == 90
    assert sum(len(item.truth) for item in train.items) == 470
    assert sum(int(item.truth.crowd.sum()) for item in train.items) == 5

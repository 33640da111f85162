from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.data import read_detection, read_pixels, write_predictions, write_voc
from sppnet.errors import UserError
from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize

SIZE = ImageSize(30, 40)
# Multiples of 2 ** -24 survive the 1 that VOC adds.
WIDE = st.floats(0, 40, width=16)
HIGH = st.floats(0, 30, width=16)
BOX = st.tuples(WIDE, HIGH, WIDE, HIGH).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
INSIDE = BOX.filter(lambda b: b[0] < 40 and b[1] < 30 and b[2] > 0 and b[3] > 0)


def truth(boxes: list[tuple[float, ...]], labels: list[int], names: tuple[str, ...]) -> GroundTruth:
    return GroundTruth.make(
        Boxes(torch.tensor(boxes).reshape(-1, 4), SIZE), torch.tensor(labels, dtype=torch.int64), names
    )


def grey(value: int = 100) -> np.ndarray:
    return np.full((30, 40, 3), value, np.uint8)


@given(st.lists(INSIDE, min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_written_voc_data_are_read(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[float, ...]]
) -> None:
    root = tmp_path_factory.mktemp("voc")
    labels = [number % 2 for number in range(len(boxes))]
    given_truth = truth(boxes, labels, ("<a & b>", "ü"))
    difficult = torch.tensor([number % 3 == 0 for number in range(len(boxes))])
    given_truth = GroundTruth(
        given_truth.boxes, given_truth.labels, given_truth.names, difficult, given_truth.crowd
    )
    write_voc(root, [("one", grey(), given_truth)], "train")
    [item] = read_detection(root).items
    assert torch.equal(item.truth.boxes.xyxy, given_truth.boxes.xyxy)
    assert [item.truth.names[k] for k in item.truth.labels] == [given_truth.names[k] for k in labels]
    assert torch.equal(item.truth.difficult, difficult)


def test_splits_are_added_and_images_are_read(tmp_path: Path) -> None:
    box = truth([(1, 2, 3, 4)], [0], ("cat",))
    assert write_voc(tmp_path, [("a", grey(10), box), ("b", grey(20), box)], "train").read_text() == "a\nb\n"
    write_voc(tmp_path, iter([("c", grey(30), truth([], [], ("cat",)))]), "test")
    train, test = read_detection(tmp_path, "train"), read_detection(tmp_path, "test")
    assert [item.key for item in (*train.items, *test.items)] == ["a", "b", "c"]
    assert [int(read_pixels(item.path).mean()) for item in (*train.items, *test.items)] == [10, 20, 30]
    # Whole numbers stay whole, as other readers of VOC want them.
    assert "<xmin>2</xmin>" in (tmp_path / "Annotations" / "a.xml").read_text()
    assert not list(tmp_path.rglob("*.part"))


def test_data_that_voc_cannot_express(tmp_path: Path) -> None:
    box = truth([(1, 2, 3, 4)], [0], ("cat",))
    crowd = GroundTruth(box.boxes, box.labels, box.names, box.difficult, ~box.crowd)
    small = np.zeros((3, 3, 3), np.uint8)
    for items, got in [
        ([("a/b", grey(), box)], "a plain file name"),
        ([("", grey(), box)], "a plain file name"),
        ([("a", grey(), box), ("a", grey(), box)], "each key once"),
        ([("a", grey().astype(np.float32), box)], "uint8"),
        ([("a", small, box)], "height=3"),
        ([("a", grey(), crowd)], "crowd"),
    ]:
        with pytest.raises(UserError, match=got):
            write_voc(tmp_path, items, "train")


def found(boxes: list[tuple[float, ...]], scores: list[float]) -> Detections:
    labels = torch.tensor([number % 2 for number in range(len(boxes))], dtype=torch.int64)
    return Detections(
        Boxes(torch.tensor(boxes).reshape(-1, 4), SIZE), torch.tensor(scores), labels, ("cat", "dog")
    )


SCORED = st.lists(st.tuples(BOX, st.floats(-3, 3, width=32)), max_size=5)


@given(SCORED)
@settings(deadline=None, max_examples=40)
def test_json_and_csv_hold_the_same_float32(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    folder = tmp_path_factory.mktemp("out")
    result = found([row[0] for row in rows], [row[1] for row in rows])
    write_predictions(folder / "p.json", [("a.jpg", result), (Path("b.jpg"), found([], []))])
    content = json.loads((folder / "p.json").read_text())
    assert content["names"] == ["cat", "dog"]
    assert [image["image"] for image in content["images"]] == ["a.jpg", "b.jpg"]
    image = content["images"][0]
    assert (image["height"], image["width"]) == (30, 40)
    boxes = [d["box"] for d in image["detections"]]
    assert torch.equal(torch.tensor(boxes).reshape(-1, 4), result.boxes.xyxy)
    assert torch.equal(torch.tensor([d["score"] for d in image["detections"]]), result.scores)
    assert [d["label"] for d in image["detections"]] == result.labels.tolist()
    assert [d["name"] for d in image["detections"]] == [("cat", "dog")[k] for k in result.labels]

    write_predictions(folder / "p.csv", [("a,b.jpg", result)], "csv")
    lines = list(csv.DictReader((folder / "p.csv").read_text().splitlines()))
    assert torch.equal(
        torch.tensor([[float(line[s]) for s in ("x0", "y0", "x1", "y1")] for line in lines]).reshape(-1, 4),
        result.boxes.xyxy,
    )
    assert torch.equal(torch.tensor([float(line["score"]) for line in lines]), result.scores)
    assert {line["image"] for line in lines} <= {"a,b.jpg"}


def test_coco_results(tmp_path: Path) -> None:
    result = found([(1.5, 2, 11.75, 22.25), (0, 0, 40, 30)], [0.875, 0.1])
    path = tmp_path / "new" / "r.json"
    write_predictions(path, [("x/000012.jpg", result), ("img.v2", result)], "coco", (3, 90))
    rows = json.loads(path.read_text())
    assert rows[0] == {"image_id": 12, "category_id": 3, "bbox": [1.5, 2, 10.25, 20.25], "score": 0.875}
    assert rows[1] == {"image_id": 12, "category_id": 90, "bbox": [0, 0, 40, 30], "score": 0.1}
    assert rows[2]["image_id"] == "img.v2"
    write_predictions(path, [("12", result)], "coco")
    assert [row["category_id"] for row in json.loads(path.read_text())] == [1, 2]
    write_predictions(path, [], "coco")
    assert json.loads(path.read_text()) == []


def test_inconsistent_predictions_are_refused(tmp_path: Path) -> None:
    result = found([], [])
    other = Detections.empty(SIZE, ("emu",))
    path = tmp_path / "p.json"
    calls: list[tuple[Callable[[], None], str]] = [
        (lambda: write_predictions(path, [("a", result)], "xml"), "one of json, coco, csv, got 'xml'"),
        (
            lambda: write_predictions(path, [("a", result), ("b", other)]),
            "b: expected the class names cat, dog",
        ),
        (lambda: write_predictions(path, [("a", result)], "coco", (1,)), "2 ids, one per class, got 1"),
        (
            lambda: write_predictions(path, [("7.jpg", result), ("x/007.png", result)], "coco"),
            "a unique image id",
        ),
    ]
    for call, got in calls:
        with pytest.raises(UserError, match=got):
            call()
    assert not list(tmp_path.iterdir())

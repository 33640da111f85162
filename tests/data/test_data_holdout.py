import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sppnet.data import (
    Division,
    FittedOn,
    classification_to_fit,
    classification_to_measure,
    detection_to_fit,
    detection_to_measure,
    hold_out,
    read_classification,
    read_detection,
    write_voc,
)
from sppnet.errors import UserError
from sppnet.structures import Boxes, GroundTruth, ImageSize

LABELS = st.lists(st.sets(st.integers(0, 4), max_size=3), max_size=60)
KINDS = ("cat", "dog")


@given(LABELS, st.floats(0, 0.95), st.integers(0, 99))
def test_every_class_keeps_most_of_its_images(labels, share, seed):
    chosen = hold_out(labels, share, seed)
    assert chosen == sorted(set(chosen))
    assert chosen == hold_out(labels, share, seed)
    for number in range(5):
        count = sum(number in shown for shown in labels)
        held = sum(number in labels[i] for i in chosen)
        assert held <= share * count + 1e-6
        assert held < count or not count


@given(st.lists(st.integers(0, 4), max_size=80), st.integers(0, 99))
def test_images_of_one_class_are_held_out_by_exact_shares(labels, seed):
    chosen = hold_out([[label] for label in labels], 0.2, seed)
    for number in range(5):
        assert sum(labels[i] == number for i in chosen) == labels.count(number) // 5


def test_the_division_depends_on_the_seed():
    labels = [[0]] * 50
    assert hold_out(labels, 0.2, 0) != hold_out(labels, 0.2, 1)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_shares_out_of_range(share):
    with pytest.raises(UserError, match="val_share"):
        hold_out([[0]], share, 0)


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 255, (12, 14, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Class folders without splits: ten images of each class."""
    for number, kind in enumerate(KINDS):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(pixels(100 * number + i)).save(tmp_path / "data" / kind / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def boxes(tmp_path):
    """Images with boxes, in VOC layout without image sets."""
    size = ImageSize(12, 14)
    truth = GroundTruth.make(Boxes(torch.tensor([[1.0, 2, 9, 8]]), size), torch.tensor([0]), ("cat",))
    write_voc(tmp_path / "voc", [(f"a{i}", pixels(i), truth) for i in range(10)], "all")
    return tmp_path / "voc"


def test_an_undivided_folder_is_divided_and_measured_on_the_rest(folder):
    data, record = classification_to_fit(folder, None, None, Division(None, 3), skip_bad=False)
    assert len(data) == 16
    assert [item.label for item in data.items].count(0) == 8
    assert any("4 of 20 images held out" in note for note in data.notes)
    measured, facts = classification_to_measure(folder, None, None, KINDS, record)
    assert facts == {"held_out": True, "trained_on": 0}
    assert len(measured) == 4
    every = {item.path for item in read_classification(folder).items}
    assert {item.path for item in data.items} | {item.path for item in measured.items} == every


def test_boxes_without_splits_are_divided_alike(boxes):
    data, record = detection_to_fit(boxes, None, None, Division(0.3, 0), skip_bad=False)
    measured, facts = detection_to_measure(boxes, None, None, ("cat",), record)
    assert (len(data), len(measured), facts["held_out"]) == (7, 3, True)
    assert not {item.path for item in data.items} & {item.path for item in measured.items}


def test_evaluation_reports_fitted_images(folder, tmp_path):
    _, record = classification_to_fit(folder, None, None, Division(0.0, 0), skip_bad=False)
    measured, facts = classification_to_measure(folder, None, None, KINDS, record)
    assert facts == {"held_out": False, "trained_on": 20}
    assert any("20 of 20 measured images were fitted on" in note for note in measured.notes)
    # Files of the same content elsewhere, under other names, among others.
    other = tmp_path / "other"
    for number, kind in enumerate(KINDS):
        (other / kind).mkdir(parents=True)
        Image.fromarray(pixels(100 * number)).save(other / kind / "copy.png")
        Image.fromarray(pixels(1000 + number)).save(other / kind / "new.png")
    assert classification_to_measure(other, None, None, KINDS, record)[1]["trained_on"] == 2


def test_images_added_later_are_evaluated(folder):
    _, record = classification_to_fit(folder, None, None, Division(None, 0), skip_bad=False)
    Image.fromarray(pixels(999)).save(folder / "cat" / "new.png")
    measured, facts = classification_to_measure(folder, None, None, KINDS, record)
    assert len(measured) == 5
    assert facts["trained_on"] == 0


def test_a_named_split_and_a_data_set_object_are_not_divided(folder):
    data = read_classification(folder)
    whole, record = classification_to_fit(data, None, None, Division(None, 0), skip_bad=False)
    assert len(whole) == 20
    assert record.held_out == ()
    part, _ = classification_to_fit(data, None, None, Division(0.5, 0), skip_bad=False)
    assert len(part) == 10
    divided = replace(data, split="train")
    assert len(classification_to_fit(divided, None, None, Division(0.5, 0), skip_bad=False)[0]) == 20


def test_small_classes_are_not_held_out_and_a_note_reports_it(folder):
    for kind in KINDS:
        for i in range(4, 10):
            (folder / kind / f"{i}.png").unlink()
    data, record = classification_to_fit(folder, None, None, Division(None, 0), skip_bad=False)
    assert len(data) == 8
    assert any("no image held out" in note for note in data.notes)
    assert classification_to_measure(folder, None, None, KINDS, record)[1]["trained_on"] == 8


def test_damaged_images_are_listed_together_or_left_out(folder):
    damaged = [folder / "cat" / "2.png", folder / "dog" / "0.png", folder / "dog" / "9.png"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="--skip-bad") as caught:
        classification_to_fit(folder, None, None, Division(0.0, 0), skip_bad=False)
    assert all(str(path) in str(caught.value) for path in damaged)
    assert "3 of 20 images" in str(caught.value)
    data, record = classification_to_fit(folder, None, None, Division(0.0, 0), skip_bad=True)
    assert len(data) == len(record.trained) == 17
    assert any("3 of 20 images left out" in note for note in data.notes)
    with pytest.raises(UserError, match="3 of 20 images"):
        classification_to_measure(folder, None, None, KINDS, record)
    assert len(classification_to_measure(folder, None, None, KINDS, record, skip_bad=True)[0]) == 17


def test_records_survive_json(folder):
    _, record = classification_to_fit(folder, None, None, Division(None, 7), skip_bad=False)
    assert FittedOn.from_dict(record.to_dict(), "model.json") == record
    assert FittedOn.from_dict(None, "model.json") is None


@pytest.mark.parametrize(
    "change", [{"trained": "abc"}, {"held_out": 3}, {"share": 2}, {"seed": "0"}, {"trained": "g" * 16}]
)
def test_damaged_records_are_refused(change):
    content = {"share": 0.2, "seed": 0, "trained": "", "held_out": "", **change}
    with pytest.raises(UserError, match=r"model\.json"):
        FittedOn.from_dict(content, Path("model.json"))
    with pytest.raises(UserError, match=r"model\.json"):
        FittedOn.from_dict([], Path("model.json"))


def test_an_unknown_record_gives_none(boxes):
    data = read_detection(boxes, "all")
    assert detection_to_measure(data, None, None, ("cat",), None)[1]["trained_on"] is None


@pytest.mark.parametrize("layout", ["voc", "yolo", "coco"])
def test_images_without_a_readable_header_are_listed_and_left_out_too(layout, tmp_path):
    root = tmp_path
    if layout == "voc":
        size = ImageSize(12, 14)
        truth = GroundTruth.make(Boxes(torch.tensor([[1.0, 2, 9, 8]]), size), torch.tensor([0]), ("cat",))
        write_voc(root, [(f"a{i}", pixels(i), truth) for i in range(5)], "train")
        folder = tmp_path / "JPEGImages"
    else:
        folder = tmp_path / "images"
        folder.mkdir()
        for i in range(5):
            Image.fromarray(pixels(i)).save(folder / f"a{i}.jpg")
        if layout == "yolo":
            (tmp_path / "labels").mkdir()
            for i in range(5):
                (tmp_path / "labels" / f"a{i}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        else:
            content = {
                "images": [{"id": i, "file_name": f"a{i}.jpg", "height": 12, "width": 14} for i in range(5)],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [
                    {"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 4, 5], "iscrowd": 0, "area": 20}
                    for i in range(5)
                ],
            }
            (tmp_path / "annotations").mkdir()
            (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    files = sorted(folder.iterdir())
    files[1].write_bytes(b"")
    files[3].write_bytes(b"no image at all")
    with pytest.raises(UserError) as caught:
        detection_to_fit(root, None, None, Division(0.0, 0), skip_bad=False)
    assert all(files[i].name in str(caught.value) for i in (1, 3))
    data, _ = detection_to_fit(root, None, None, Division(0.0, 0), skip_bad=True)
    assert [item.path.name for item in data.items] == [files[i].name for i in (0, 2, 4)]
    assert all(len(item.truth) == 1 for item in data.items)

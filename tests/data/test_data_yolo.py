from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sppnet.data import default_split, read_detection, recognise, splits
from sppnet.errors import UserError

Make = Callable[..., Path]


@pytest.fixture
def yolo(image: Make, text: Make) -> Callable[..., Path]:
    """Images 40 x 30 a and b with labels for a only, under a pattern of folders."""

    def make(root: Path, pattern: str = "{}/train", label: str = "1 0.5 0.5 0.25 0.2\n") -> Path:
        for name in "ab":
            image(root / pattern.format("images") / f"{name}.jpg")
        text(root / pattern.format("labels") / "a.txt", label)
        return root

    return make


def test_boxes_and_a_image_without_labels(tmp_path: Path, yolo: Make, text: Make) -> None:
    root = yolo(tmp_path)
    text(root / "data.yaml", "names: [cat, dog]\ntrain: images/train\n")
    assert recognise(root) == recognise(root / "data.yaml") == "yolo"
    for path in (root, root / "data.yaml"):
        data = read_detection(path)
        assert (data.layout, data.split, data.names, data.category_ids) == (
            "yolo",
            "train",
            ("cat", "dog"),
            (0, 1),
        )
        a, b = data.items
        assert (a.key, a.path, b.key, len(b.truth)) == ("a", root / "images" / "train" / "a.jpg", "b", 0)
        assert torch.allclose(a.truth.boxes.xyxy, torch.tensor([[15.0, 12, 25, 18]]), atol=1e-5)
        assert a.truth.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.1 0.2 0.5 0.2 0.3 0.9", (4, 6, 20, 27)),
        ("0 0.1 0.2 0.5 0.2 0.5 0.9 0.1 0.9", (4, 6, 20, 27)),
        ("0.000000 0.5 0.5 1 1", (0, 0, 40, 30)),
        ("0 0.5 0.5 1.02 1.02", (0, 0, 40, 30)),
        ("\n\n0 0.5 0.5 0 0", (20, 15, 20, 15)),
    ],
)
def test_kinds_of_lines(tmp_path: Path, yolo: Make, line: str, box: tuple[float, ...]) -> None:
    data = read_detection(yolo(tmp_path, label=line))
    assert data.items[0].truth.boxes.xyxy[0].tolist() == pytest.approx(box, abs=1e-4)


def test_poses_are_boxes_with_points(tmp_path: Path, yolo: Make, text: Make) -> None:
    root = yolo(tmp_path, label="0 0.5 0.5 1 1 0.1 0.1 2 0.2 0.2 1\n")
    text(root / "data.yaml", "names: {0: man}\nkpt_shape: [2, 3]\ntrain: images/train\n")
    assert read_detection(root).items[0].truth.boxes.xyxy.tolist() == [[0, 0, 40, 30]]


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("2 0.5 0.5 1 1", "one of the 2 class numbers up to 1, got 2"),
        ("-1 0.5 0.5 1 1", "a class number in the first column, got '-1'"),
        ("cat 0.5 0.5 1 1", "a class number in the first column, got 'cat'"),
        ("1 0.5 0.5 1", "got 4 numbers"),
        ("1 0.5 0.5 1 1 0.9", "got 6 numbers"),
        ("1 0.5 x 1 1", "numbers after the class number, got 0.5 x 1 1"),
        ("1 0.5 nan 1 1", "finite numbers after the class number"),
        ("1 0.5 0.5 -1 1", "a box with x0 <= x1"),
        ("1 0.9 0.5 0.5 1", "inside its image of 40 x 30"),
        ("1 300 200 50 20", "inside its image of 40 x 30"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, yolo: Make, text: Make, line: str, got: str) -> None:
    root = yolo(tmp_path, label=f"0 0.5 0.5 1 1\n{line}\n")
    text(root / "data.yaml", "names: [cat, dog]\ntrain: images/train\n")
    with pytest.raises(UserError, match=got) as caught:
        read_detection(root)
    assert f"{root / 'labels' / 'train' / 'a.txt'}, line 2" in str(caught.value)


@pytest.mark.parametrize("pattern", ["{}/train", "train/{}", "{}"])
def test_without_a_yaml(tmp_path: Path, yolo: Make, pattern: str) -> None:
    root = yolo(tmp_path, pattern, "2 0.5 0.5 1 1\n")
    assert recognise(root) == "yolo"
    assert splits(root) == (() if pattern == "{}" else ("train",))
    data = read_detection(root)
    assert (data.names, data.items[0].truth.labels.tolist()) == (("0", "1", "2"), [2])
    (root / "classes.txt").write_text("ant\nbee\ncow\n")
    assert read_detection(root).names == ("ant", "bee", "cow")


def test_numbered_classes_are_those_of_every_split(tmp_path: Path, yolo: Make) -> None:
    yolo(tmp_path, "train/{}", "0 0.5 0.5 1 1")
    root = yolo(tmp_path, "valid/{}", "4 0.5 0.5 1 1")
    assert splits(root) == ("train", "valid")
    assert default_split(root, "evaluate") == "valid"
    assert read_detection(root, "train").names == read_detection(root, "val").names == tuple("01234")


@pytest.mark.parametrize(
    "entry",
    ["images/train", "../images/train", "/gone/set/images/train", "./images/train", "C:\\set\\images\\train"],
)
def test_paths_in_a_yaml(tmp_path: Path, yolo: Make, text: Make, entry: str) -> None:
    root = yolo(tmp_path / "inner")
    text(root / "data.yml", f"path: /gone/set\nnames: [cat, dog]\ntrain: {entry}\nval: images/none\n")
    assert splits(root) == ("train", "val")
    assert len(read_detection(root)) == 2
    with pytest.raises(UserError, match="images/none"):
        read_detection(root, "val")


def test_a_missing_split_is_not_replaced_by_another(tmp_path: Path, yolo: Make, text: Make) -> None:
    root = yolo(tmp_path, "{}")
    text(root / "data.yaml", "names: [cat, dog]\ntrain: ../train/images\n")
    with pytest.raises(UserError, match=r"a folder or list of images \.\./train/images"):
        read_detection(root)


def test_path_lists_and_several_sources(tmp_path: Path, yolo: Make, text: Make) -> None:
    root = yolo(tmp_path / "set")
    yolo(root, "{}/more")
    text(root / "train.txt", "./images/train/a.jpg\n\nimages/train/b.jpg\n")
    text(root / "data.yaml", "path: .\nnames: [cat, dog]\ntrain: [train.txt, images/more]\n")
    data = read_detection(root)
    # Stems that come twice are told apart by their folders.
    assert [item.key for item in data.items] == ["images/train/a", "images/train/b", "a", "b"]
    assert [len(item.truth) for item in data.items] == [1, 0, 1, 0]


def test_names_by_number(tmp_path: Path, yolo: Make, text: Make) -> None:
    root = yolo(tmp_path, label="7 0.5 0.5 1 1")
    text(root / "data.yaml", "names: {7: dog, 2: cat}\ntrain: images/train\n")
    data = read_detection(root)
    assert (data.names, data.category_ids) == (("cat", "dog"), (2, 7))
    assert data.items[0].truth.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("yaml", "got"),
    [
        ("train: images/train\nnames:\n", "the class names under names"),
        ("train: images/train\nnames: {a: b}\n", "whole numbers as the keys of names, got a"),
        ("train: [\n", "well-formed YAML"),
        ("", "the class names under names"),
    ],
)
def test_a_wrong_yaml(tmp_path: Path, yolo: Make, text: Make, yaml: str, got: str) -> None:
    root = yolo(tmp_path)
    text(root / "data.yaml", yaml)
    with pytest.raises(UserError, match=got):
        read_detection(root)


def test_several_yamls(tmp_path: Path, yolo: Make, text: Make) -> None:
    root = yolo(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        text(root / name, "names: [cat, dog]\ntrain: images/train\n")
    with pytest.raises(UserError, match=r"a\.yaml, b\.yaml"):
        read_detection(root)
    assert len(read_detection(root / "a.yaml")) == 2


def test_data_without_labels_are_refused(tmp_path: Path, yolo: Make) -> None:
    root = yolo(tmp_path)
    (root / "labels" / "train" / "a.txt").unlink()
    with pytest.raises(UserError, match="a label file for at least one of 2 images"):
        read_detection(root)

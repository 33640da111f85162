from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sppnet.data import default_split, read_classification, recognise, splits
from sppnet.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "caltech101-small"
Make = Callable[..., Path]


def test_classes_are_sorted_folders(tmp_path: Path, image: Make) -> None:
    paths = [image(tmp_path / name) for name in ("dog/b.jpg", "dog/a.png", "cat/c.jpg")]
    (tmp_path / ".cache").mkdir()
    (tmp_path / "dog" / "notes.txt").touch()
    assert recognise(tmp_path) == "folders"
    assert splits(tmp_path) == ()
    assert default_split(tmp_path, "fit") == default_split(tmp_path, "evaluate") == ""
    data = read_classification(tmp_path)
    assert (data.layout, data.split, data.names) == ("folders", "", ("cat", "dog"))
    assert [(i.path, i.label) for i in data.items] == [(paths[2], 0), (paths[1], 1), (paths[0], 1)]


def test_class_numbers_are_the_same_in_every_split(tmp_path: Path, image: Make) -> None:
    for name in ("train/dog/a.jpg", "train/cat/a.jpg", "valid/dog/b.jpg", "valid/emu/b.jpg"):
        image(tmp_path / name)
    assert splits(tmp_path) == ("train", "valid")
    train, val = read_classification(tmp_path), read_classification(tmp_path, "val")
    assert (train.split, val.split) == ("train", "valid")
    assert train.names == val.names == ("cat", "dog", "emu")
    assert [item.label for item in train.items] == [0, 1]
    assert [item.label for item in val.items] == [1, 2]


def test_a_class_may_be_called_test_if_the_layout_is_named(tmp_path: Path, image: Make) -> None:
    for name in ("test/a.jpg", "exam/a.jpg"):
        image(tmp_path / name)
    with pytest.raises(UserError, match=r"the folders test.*layout='folders'"):
        read_classification(tmp_path)
    assert splits(tmp_path, "folders") == ()
    assert read_classification(tmp_path, layout="folders").names == ("exam", "test")


def test_mistakes(tmp_path: Path, image: Make) -> None:
    image(tmp_path / "train" / "dog" / "a.jpg")
    with pytest.raises(UserError, match="at least two class folders with images, got dog"):
        read_classification(tmp_path)
    empty = tmp_path / "train" / "cat"
    empty.mkdir()
    with pytest.raises(UserError, match="images in every class folder, got none") as caught:
        read_classification(tmp_path)
    assert str(empty) in str(caught.value)
    image(empty / "a.jpg")
    with pytest.raises(UserError, match="one of the splits train, got 'test'"):
        read_classification(tmp_path, "test")


def test_a_split_of_undivided_data_is_refused(tmp_path: Path, image: Make) -> None:
    for name in ("dog/b.jpg", "cat/c.jpg"):
        image(tmp_path / name)
    with pytest.raises(UserError, match="no split, because the data set is not divided, got 'train'"):
        read_classification(tmp_path, "train")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the Caltech images are not beside the repository")
def test_real_class_folders() -> None:
    train, test = read_classification(SHARED), read_classification(SHARED, "test")
    assert (len(train), len(test), len(train.names)) == (3030, 939, 101)


def test_links_to_missing_images_are_counted(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 3)).save(tmp_path / name / "a.png")
    (tmp_path / "cat" / "b.png").symlink_to(tmp_path / "nowhere")
    dataset = read_classification(tmp_path)
    assert len(dataset.items) == 2
    assert dataset.notes == ("1 link to missing images left out: b.png",)

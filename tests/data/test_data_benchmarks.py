from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.data import read_caltech101, read_classification, read_voc_labels, splits
from sppnet.errors import UserError


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(path)


def imagenet(root: Path) -> Path:
    for wnid in ("n02", "n01", "n03"):
        image(root / "train" / wnid / f"{wnid}_1.JPEG")
    for i in (1, 2, 3):
        image(root / "val" / f"ILSVRC2012_val_{i}.JPEG")
    return root


def test_ilsvrc_by_a_list_of_numbers(tmp_path: Path) -> None:
    root = imagenet(tmp_path)
    assert splits(root) == ("train",)
    lines = [f"ILSVRC2012_val_{i}.JPEG {k}\n" for i, k in ((2, 0), (1, 2), (3, 1))]
    (root / "val.txt").write_text("".join(lines))
    assert splits(root) == ("train", "val")
    read = read_classification(root, "val")
    assert read.names == ("n01", "n02", "n03")
    assert [item.label for item in read.items] == [2, 0, 1]
    assert len(read_classification(root, "train").items) == 3


def test_ilsvrc_by_a_list_of_wnids(tmp_path: Path) -> None:
    root = imagenet(tmp_path)
    text = "ImageId,PredictionString\nILSVRC2012_val_1,n03 1 2 3 4 \nILSVRC2012_val_2,n01 1 2 3 4\n"
    (root / "LOC_val_solution.csv").write_text(text + "ILSVRC2012_val_3,n02 1 2 3 4 n02 5 6 7 8\n")
    assert [item.label for item in read_classification(root, "val").items] == [2, 0, 1]


def test_ilsvrc_by_the_development_kit(tmp_path: Path) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    root = imagenet(tmp_path)
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n1\n2\n")
    with pytest.raises(UserError, match=r"meta\.mat"):
        read_classification(root, "val")
    kinds = np.zeros(3, dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O")])
    for row, (number, wnid) in enumerate([(1, "n02"), (2, "n03"), (3, "n01")]):
        kinds[row] = (number, wnid)
    savemat(root / "meta.mat", {"synsets": kinds})
    assert [item.label for item in read_classification(root, "val").items] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ILSVRC2012_val_1.JPEG 0\n", "no such line"),
        ("a.JPEG\n", "line 1"),
        ("ILSVRC2012_val_1.JPEG 7\n", "classes"),
    ],
)
def test_ilsvrc_lists_at_fault(tmp_path: Path, text: str, said: str) -> None:
    root = imagenet(tmp_path)
    (root / "val.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        read_classification(root, "val")


def test_caltech_from_its_archive_and_from_divided_folders(tmp_path: Path) -> None:
    for name in ("ant", "BACKGROUND_Google"):
        image(tmp_path / "a" / "caltech-101" / "101_ObjectCategories" / name / "image_0001.jpg")
        for split in ("train", "test"):
            image(tmp_path / "b" / split / name / f"{split}.jpg")
    archive, divided = (read_caltech101(tmp_path / x) for x in "ab")
    assert archive.names == divided.names == ("BACKGROUND_Google", "ant")
    assert [item.label for item in archive.items] == [0, 1]
    assert sorted(item.label for item in divided.items) == [0, 0, 1, 1]
    with pytest.raises(UserError, match=r"data\.caltech\.edu.*|101_ObjectCategories"):
        read_caltech101(tmp_path / "none")


def test_voc_labels(tmp_path: Path) -> None:
    home = tmp_path / "VOCdevkit" / "VOC2007"
    (home / "Annotations").mkdir(parents=True)
    (home / "ImageSets" / "Main").mkdir(parents=True)
    for key in ("000001", "000002"):
        image(home / "JPEGImages" / f"{key}.jpg")
        (home / "Annotations" / f"{key}.xml").write_text("<annotation/>")
    main = home / "ImageSets" / "Main"
    (main / "cat_test.txt").write_text("000001 -1\n000002  1\n")
    (main / "dog_test.txt").write_text("000001  0\n000002 -1\n")
    (main / "test.txt").write_text("000001\n000002\n")
    paths, names, shown = read_voc_labels(tmp_path, "test")
    assert [p.stem for p in paths] == ["000001", "000002"]
    assert names == ("cat", "dog")
    assert shown.tolist() == [[-1, 0], [1, -1]]
    (main / "dog_test.txt").write_text("000009  0\n000002 -1\n")
    with pytest.raises(UserError, match="dog_test"):
        read_voc_labels(tmp_path, "test")
    with pytest.raises(UserError, match=r"host\.robots"):
        read_voc_labels(tmp_path / "none", "test")

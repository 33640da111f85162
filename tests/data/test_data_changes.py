from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet.data import (
    check_images,
    drop_items,
    read_classification,
    read_detection,
    read_pixels,
    without_empty_classes,
)
from sppnet.errors import UserError

Make = Callable[..., Path]


@pytest.fixture
def coco(tmp_path: Path, image: Make) -> Path:
    """Two images, the objects of category 9, a crowd of category 4, nothing of categories 0 and 3."""
    rows = [(1, 101, 9, 0), (2, 205, 4, 1), (3, 205, 9, 0)]
    annotations = [
        {"id": i, "image_id": key, "category_id": c, "bbox": [1, 2, 10, 10], "iscrowd": crowd}
        for i, key, c, crowd in rows
    ]
    content = {
        "images": [{"id": 101, "file_name": "a.jpg"}, {"id": 205, "file_name": "b.jpg"}],
        "annotations": annotations,
        "categories": [
            {"id": c, "name": name} for c, name in ((0, "all"), (3, "ant"), (4, "bee"), (9, "cow"))
        ],
    }
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / "set" / "train" / name)
    (tmp_path / "set" / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    return tmp_path / "set"


def test_image_ids_are_those_of_the_file(coco: Path) -> None:
    assert [item.image_id for item in read_detection(coco).items] == [101, 205]


def test_classes_without_objects_are_dropped_and_named(coco: Path) -> None:
    data = read_detection(coco)
    assert data.names == ("all", "ant", "bee", "cow")
    kept = without_empty_classes(data)
    assert (kept.names, kept.category_ids) == (("cow",), (9,))
    assert kept.notes[-1] == "3 classes without objects left out: all, ant, bee"
    assert [item.truth.labels.tolist() for item in kept.items] == [[0], [0]]
    assert [item.image_id for item in kept.items] == [101, 205]
    assert without_empty_classes(kept) is kept


def test_no_object_at_all(coco: Path) -> None:
    data = read_detection(coco)
    file = coco / "train" / "_annotations.coco.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    with pytest.raises(UserError, match="an object in 2 images, got none"):
        without_empty_classes(read_detection(coco))
    assert len(data.items[0].truth) == 1


def test_left_out_images_are_counted(coco: Path, tmp_path: Path, image: Make) -> None:
    data = read_detection(coco)
    fewer = drop_items(data, [str(data.items[0].path), tmp_path / "elsewhere.jpg"])
    assert [item.key for item in fewer.items] == ["205"]
    assert fewer.notes == ("1 of 2 images left out: a.jpg",)
    with pytest.raises(UserError, match="at least one usable image"):
        drop_items(data, [item.path for item in data.items])
    for name in ("cat/a.jpg", "dog/b.jpg"):
        image(tmp_path / "folders" / name)
    folders = read_classification(tmp_path / "folders")
    assert [item.label for item in drop_items(folders, [folders.items[0].path]).items] == [1]


def encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


FILES = {kind: encoded(kind) for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")}


@given(st.sampled_from(sorted(FILES)), st.floats(0, 1), st.none() | st.binary(min_size=1, max_size=4))
@settings(deadline=None, max_examples=150)
def test_listed_images_cannot_be_read_and_others_can(
    tmp_path_factory: pytest.TempPathFactory, kind: str, share: float, patch: bytes | None
) -> None:
    whole = FILES[kind]
    at = int(share * len(whole))
    path = tmp_path_factory.mktemp("images") / "a.img"
    path.write_bytes(whole[:at] if patch is None else whole[:at] + patch + whole[at + len(patch) :])
    listed = check_images([path, path])
    try:
        read_pixels(path)
    except UserError:
        assert [one for one, _ in listed] == [path]
        assert "\n" not in listed[0][1]
    else:
        assert listed == []


@pytest.mark.parametrize("parallel", [False, True])
def test_all_damaged_images_are_listed_in_order(tmp_path: Path, image: Make, parallel: bool) -> None:
    paths = [image(tmp_path / f"{number}.jpg") for number in range(6)]
    paths[1].write_bytes(b"")
    paths[4].write_bytes(paths[4].read_bytes()[:300])
    paths.append(tmp_path / "gone.jpg")
    found = check_images(paths, parallel)
    assert [path for path, _ in found] == [paths[1], paths[4], paths[6]]
    assert found[0][1] == "expected an image, got an empty file"

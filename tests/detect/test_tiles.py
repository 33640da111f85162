from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_objects import large_images

from sppnet.data import read_image, read_pixels
from sppnet.detect import Detector, DetectorOptions
from sppnet.detect.tiles import Tiling, cut_truth, detect_in_tiles, merge_tiles, tiled_set
from sppnet.errors import UserError
from sppnet.structures import Boxes, DetectionItem, Detections, DetectionSet, GroundTruth, ImageSize

SHARED = Path(__file__).parents[3] / "shared" / "data"
NAMES = ("light", "dark")
sides = st.integers(1, 300)


@given(sides, sides, st.integers(32, 120), st.floats(0, 0.9))
def test_tiles_cover_the_image_and_overlap(height: int, width: int, tile: int, overlap: float) -> None:
    size = ImageSize(height, width)
    windows = Tiling(tile, overlap).windows(size).xyxy
    assert (windows[:, :2] >= 0).all()
    assert (windows[:, 2:] <= torch.tensor([width, height])).all()
    assert (windows[:, 2:] - windows[:, :2] == torch.tensor([min(width, tile), min(height, tile)])).all()
    for axis, length in ((0, width), (1, height)):
        starts = windows[:, axis].unique().tolist()
        assert starts[0] == 0
        assert starts[-1] == max(0, length - tile)
        assert all(b - a <= max(1, tile - round(tile * overlap)) for a, b in pairwise(starts))


@pytest.mark.parametrize(("tile", "overlap"), [(31, 0.2), (-1, 0.2), (64, -0.1), (64, 0.95)])
def test_ranges(tile: int, overlap: float) -> None:
    with pytest.raises(UserError):
        Tiling(tile, overlap).check()
    with pytest.raises(UserError):
        DetectorOptions(tile=tile, overlap=overlap).check()


def test_tiles_need_dense_windows() -> None:
    with pytest.raises(UserError, match=r"options\.tile: expected 0 with proposals of whole images"):
        DetectorOptions(tile=64, source="selective-search").check()


def test_what_is_left_of_cut_objects() -> None:
    size = ImageSize(100, 200)
    xyxy = [[10, 10, 30, 30], [50, 20, 70, 40], [58, 60, 68, 70], [59.5, 80, 69.5, 90], [90, 0, 100, 9]]
    truth = GroundTruth.make(Boxes(torch.tensor(xyxy), size), torch.tensor([0, 1, 0, 1, 0]), NAMES)
    cut = cut_truth(truth, torch.tensor([0.0, 10.0, 60.0, 100.0]))
    assert cut.boxes.size == ImageSize(90, 60)
    # Whole; half visible, enough; a fifth visible; a twentieth; nothing.
    assert cut.boxes.xyxy.tolist() == [[10, 0, 30, 20], [50, 10, 60, 30], [58, 50, 60, 60]]
    assert cut.labels.tolist() == [0, 1, 0]
    assert cut.difficult.tolist() == [False, False, True]


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionSet:
    draw = np.random.default_rng(0)
    items = []
    for number, (height, width) in enumerate(((150, 220), (60, 60))):
        path = tmp_path / f"{number}.png"
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        boxes = Boxes(
            torch.tensor([[5.0, 5.0, 20.0, 20.0], [15.0, 22.0, 33.0, 36.0]]), ImageSize(height, width)
        )
        items.append(DetectionItem(path, str(number), GroundTruth.make(boxes, torch.tensor([0, 1]), NAMES)))
    return DetectionSet(tmp_path, "voc", "all", NAMES, (1, 2), tuple(items))


def test_a_set_of_tiles_has_their_pixels(dataset: DetectionSet) -> None:
    whole = read_pixels(dataset.items[0].path)
    with tiled_set(dataset, Tiling(64, 0.25), quiet=True) as tiles:
        assert tiles.names == NAMES
        # One tile of the large image, and the small image, have objects; as many tiles without are taken.
        assert sorted(len(item.truth) for item in tiles.items) == [0, 0, 2, 2]
        assert tiles.items[-1] == dataset.items[1]
        for item in tiles.items[:-1]:
            x, y = map(int, item.path.stem.split("-")[-2:])
            np.testing.assert_array_equal(read_pixels(item.path), whole[y : y + 64, x : x + 64])
            assert item.truth.boxes.size == ImageSize(64, 64)
        assert len({item.key for item in tiles.items}) == 4
        folder = tiles.items[0].path.parents[1]
        assert folder.exists()
    assert not folder.exists()


def test_temporary_files_go_when_fitting_fails(dataset: DetectionSet, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    os.truncate(dataset.items[0].path, 100)
    with pytest.raises(UserError, match=r"0\.png"), tiled_set(dataset, Tiling(64), quiet=True):
        pass
    assert not list(tmp_path.glob("sppnet-tiles-*"))


def blobs(tile: torch.Tensor) -> Detections:
    """A detector without fault: each object has its own red value, its class is in green.

    What is seen of an object in part scores higher than a whole one.
    """
    size = ImageSize(tile.shape[1], tile.shape[2])
    red = (tile[0] * 255).round().int()
    found = []
    for value in red.unique().tolist():
        if value:
            ys, xs = (red == value).nonzero(as_tuple=True)
            box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
            area = (box[2] - box[0]) * (box[3] - box[1])
            found.append((1 / (1 + area), box, int(tile[1, ys[0], xs[0]] > 0.5)))
    found.sort(key=lambda one: -one[0])
    boxes = torch.tensor([box for _, box, _ in found], dtype=torch.float32).reshape(-1, 4)
    scores, labels = torch.tensor([s for s, _, _ in found]), torch.tensor([n for _, _, n in found])
    return Detections(Boxes(boxes, size), scores.float(), labels.long(), NAMES)


@given(st.integers(0, 10**6), st.integers(50, 200), st.integers(50, 200))
@settings(max_examples=60, deadline=None)
def test_every_object_is_found_once(seed: int, height: int, width: int) -> None:
    draw = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.uint8)
    objects: list[list[int]] = []
    for value in range(1, 13):
        # Overlap is 32 pixels: an object that is no larger, edge included, is whole in some tile.
        h, w = draw.integers(3, 24, 2)
        y, x = draw.integers(0, height - h), draw.integers(0, width - w)
        if not pixels[y : y + h, x : x + w].any():
            label = int(draw.integers(2))
            pixels[y : y + h, x : x + w, :2] = value, 255 * label
            objects.append([x, y, x + w, y + h, label])
    found = detect_in_tiles(pixels, Tiling(64, 0.5), blobs, nms=0.4)
    assert found.boxes.size == ImageSize(height, width)
    rows = torch.cat([found.boxes.xyxy, found.labels[:, None]], 1).int().tolist()
    assert sorted(rows) == sorted(objects)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_a_tile_s_own_detections_and_other_classes_stay() -> None:
    size, windows = (
        ImageSize(64, 100),
        Boxes(torch.tensor([[0.0, 0, 64, 64], [36.0, 0, 100, 64]]), ImageSize(64, 100)),
    )
    nested = Boxes(torch.tensor([[40.0, 10, 60, 30], [44.0, 14, 50, 20]]), ImageSize(64, 64))
    other = Boxes(torch.tensor([[4.0, 10, 24, 30], [4.0, 10, 24, 30]]), ImageSize(64, 64))
    left = Detections(nested, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), NAMES)
    right = Detections(other, torch.tensor([0.7, 0.6]), torch.tensor([0, 1]), NAMES)
    merged = merge_tiles([left, right], windows, 0.4)
    assert merged.boxes.size == size
    assert merged.scores.tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert merged.labels.tolist() == [0, 0, 1]
    assert merged.boxes.xyxy[2].tolist() == [40, 10, 60, 30]
    nothing = Detections.empty(ImageSize(64, 64), NAMES)
    assert len(merge_tiles([nothing, nothing], windows, 0.4)) == 0


def test_a_detector_predicts_what_it_finds_in_the_tiles(dataset: DetectionSet) -> None:
    """Fitted on tiles; on an image of several, it says what `detect_in_tiles` makes of its answers."""
    options = DetectorOptions(
        tile=64, overlap=0.25, short_side=0, windows=200, rows=500, mining_rounds=1, iou_head=16
    )
    detector = Detector("builtin", device="cpu", options=options).fit(dataset, quiet=True)
    assert detector.summary_["images"] == 4
    found = detector.predict(dataset.items[0].path, threshold=0.0)
    assert not isinstance(found, list)
    assert found.detections.boxes.size == ImageSize(150, 220)
    whole = Detector("builtin", device="cpu", options=replace(options, tile=0))
    for name in ("network_", "heads_", "shapes_", "names_", "proposals_", "category_ids_"):
        setattr(whole, name, getattr(detector, name))
    windows = Tiling(64, 0.25).windows(ImageSize(150, 220))
    image = read_pixels(dataset.items[0].path)
    best = max(
        float(whole.predict(image[y0:y1, x0:x1], threshold=0.0).scores.max())
        for x0, y0, x1, y1 in windows.xyxy.int().tolist()
    )
    assert float(found.scores[0]) == pytest.approx(best, rel=1e-4)
    small = dataset.items[1].path
    one, other = detector.predict(small, threshold=0.0), whole.predict(small, threshold=0.0)
    torch.testing.assert_close(one.scores, other.scores)
    # Scores that differ by rounding may change places.
    torch.testing.assert_close(*(sorted(found.boxes.tolist()) for found in (one, other)))
    assert read_image(small).shape == (3, 60, 60)


@pytest.mark.shared
@pytest.mark.exhaustive
@pytest.mark.skipif(not SHARED.is_dir(), reason="the photographs are not beside the repository")
def test_small_objects_in_a_large_image_need_tiles(tmp_path: Path) -> None:
    images = large_images(SHARED, tmp_path / "large", 5)
    train, test = replace(images, items=images.items[:4]), replace(images, items=images.items[4:])
    assert (len(test), len(test.items[0].truth)) == (1, 40)
    tiles = Detector("builtin", device="cpu", options=DetectorOptions(tile=512, short_side=0))
    tiles.fit(train, quiet=True)
    whole = Detector("builtin", device="cpu").fit(train, quiet=True)
    assert tiles.evaluate(test, quiet=True)["AP50"] >= 0.8
    assert whole.evaluate(test, quiet=True)["AP50"] < 0.2

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from shape_images import NAMES, OPTIONS, image

from sppnet.data import read_detection, read_image, read_pixels, write_voc
from sppnet.detect import Detector, DetectorOptions
from sppnet.errors import UserError
from sppnet.evaluate import detection_metrics
from sppnet.features import extract
from sppnet.ops.boxes import iou
from sppnet.structures import Boxes, GroundTruth


def test_it_learns_to_find_what_it_was_shown(detector, shapes_set):
    metrics = detector.evaluate(shapes_set, quiet=True)
    assert metrics["images"] == 8
    assert metrics["AP50"] >= 0.9
    assert set(metrics["per_class"]) == set(NAMES)


def test_evaluate_measures_what_predict_returns_at_threshold_0(detector, shapes_set):
    metrics = detector.evaluate(shapes_set, quiet=True)
    items = read_detection(shapes_set, "val").items
    found = [result.detections for result in detector.predict([i.path for i in items], threshold=0)]
    expected = detection_metrics(found, [item.truth for item in items])
    assert {name: metrics[name] for name in expected} == expected
    assert metrics["threshold"] == 0.5


def test_boxes_are_moved_onto_the_objects(detector, shapes_set):
    item = read_detection(shapes_set, "val").items[0]
    found = detector.predict(item.path)
    overlaps = iou(item.truth.boxes.xyxy, found.boxes)
    same = item.truth.labels[:, None] == found.labels[None]
    assert float((overlaps * same).amax(1).min()) >= 0.7


def test_what_was_learned_is_told(detector):
    assert detector.names_ == NAMES
    summary = detector.summary_
    assert {"features", "mining", "svm", "regression", "total"} <= set(summary["seconds"])
    assert summary["images"] == 16
    assert summary["windows"] > 16 * 100
    assert summary["peak_memory_mb"] > 0


def test_a_run_gives_the_same_answers(detector, shapes_set, tmp_path):
    folder = detector.save(tmp_path / "run")
    again = Detector.load(folder, device="cpu")
    path = read_detection(shapes_set, "val").items[1].path
    first, second = detector.predict(path, threshold=0.0), again.predict(path, threshold=0.0)
    assert len(first) > 0
    torch.testing.assert_close(first.boxes, second.boxes)
    torch.testing.assert_close(first.scores, second.scores)
    assert torch.equal(first.labels, second.labels)
    assert again.options == OPTIONS
    assert not [p for p in folder.iterdir() if p.suffix in {".pkl", ".pt", ".pth", ".part"}]


def test_two_fits_are_equal(detector, shapes_set):
    again = Detector("builtin", device="cpu", options=OPTIONS).fit(shapes_set, quiet=True)
    torch.testing.assert_close(again.heads_.svm.weight, detector.heads_.svm.weight)
    torch.testing.assert_close(again.heads_.calibration, detector.heads_.calibration)


def test_every_kind_of_source(detector, shapes_set):
    path = read_detection(shapes_set, "val").items[0].path
    pixels = np.array(read_pixels(path))
    results = detector.predict([path, str(path), Image.fromarray(pixels), pixels])
    assert isinstance(results, list)
    for result in results:
        torch.testing.assert_close(result.boxes, results[0].boxes)


def test_results_can_be_drawn_and_written(detector, shapes_set, tmp_path):
    path = read_detection(shapes_set, "val").items[0].path
    result = detector.predict(path)
    width, height = result.plot().size
    size = result.detections.boxes.size
    # Small images are enlarged by a whole factor, so that the labels can be read.
    assert width % size.width == 0
    assert width // size.width == height // size.height >= 1
    plain = Image.open(path).resize((width, height), Image.Resampling.NEAREST)
    assert not np.array_equal(np.asarray(result.plot()), np.asarray(plain))
    written = json.loads(result.save(tmp_path / "deep" / "result.json").read_text())
    assert written == result.to_dict()
    assert Image.open(result.save(tmp_path / "drawn.png")).size == result.plot().size
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["drawn.png", "result.json"]


def test_a_threshold_leaves_out_the_less_probable(detector, shapes_set):
    path = read_detection(shapes_set, "val").items[0].path
    everything = detector.predict(path, threshold=0.0)
    some = detector.predict(path, threshold=0.5)
    assert 0 < len(some) <= int((everything.scores >= 0.5).sum()) < len(everything)
    assert {tuple(box) for box in some.boxes.tolist()} <= {tuple(box) for box in everything.boxes.tolist()}
    assert torch.equal(detector.predict(path).scores, some.scores)
    assert everything.scores.tolist() == sorted(everything.scores.tolist(), reverse=True)
    assert bool(((everything.scores >= 0) & (everything.scores <= 1)).all())


def test_proposals_from_a_file_replace_dense_windows(shapes_set, proposals_file):
    options = replace(OPTIONS, proposals=proposals_file, regressions=1)
    fitted = Detector("builtin", device="cpu", options=options).fit(shapes_set, quiet=True)
    assert fitted.evaluate(shapes_set, quiet=True)["AP50"] >= 0.9
    with pytest.raises(UserError, match="image in memory"):
        fitted.predict(np.zeros((50, 50, 3), np.uint8))


def test_without_judge_and_flipped_images(detector, shapes_set, tmp_path):
    options = replace(OPTIONS, iou_head=0, flip_below=0)
    plain = Detector("builtin", device="cpu", options=options).fit(shapes_set, quiet=True)
    assert detector.summary_["flipped"]
    assert not plain.summary_["flipped"]
    assert plain.summary_["windows"] == detector.summary_["windows"]
    assert plain.summary_["rows"] < detector.summary_["rows"]
    assert plain.heads_.boxes.iou_head is None
    assert plain.evaluate(shapes_set, quiet=True)["AP50"] >= 0.9
    again = Detector.load(plain.save(tmp_path / "run"), device="cpu")
    assert again.heads_.boxes.iou_head is None


def test_the_judge_knows_well_placed_boxes(detector, shapes_set):
    right = 0
    for item in read_detection(shapes_set, "val").items:
        truth, sides = item.truth, detector.options.map.sides
        regressors = detector.heads_.boxes
        projected = regressors.projection(extract(detector.network_, read_image(item.path), sides))
        # An IoU of a half, and none at all.
        for share, labels in ((1 / 3, truth.labels), (0.0, 1 - truth.labels)):
            shift = share * (truth.boxes.xyxy[:, 2] - truth.boxes.xyxy[:, 0])
            moved = truth.boxes.xyxy.clone()
            moved[:, 0::2] += torch.where(truth.labels == 0, shift, -shift)[:, None]
            worse = regressors.iou_logits(projected, Boxes(moved, truth.boxes.size), labels)
            right += int((regressors.iou_logits(projected, truth.boxes, truth.labels) > worse).sum())
    assert right >= 30  # of 32


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (17, 19), (1, 400)])
def test_any_image_size_can_be_predicted(detector, size):
    found = detector.predict(np.full((*size, 3), 120, np.uint8), threshold=0.0)
    assert bool(torch.isfinite(found.boxes).all())


def test_a_image_smaller_than_its_windows(detector):
    assert isinstance(detector.predict(np.zeros((8, 8, 3), np.uint8)).to_dict()["detections"], list)


def test_unfitted_detectors_say_so():
    for act in (lambda d: d.predict("x.jpg"), lambda d: d.save("x"), lambda d: d.evaluate("x")):
        with pytest.raises(UserError, match="fit or load"):
            act(Detector())


@pytest.fixture(scope="module")
def late_squares(tmp_path_factory):
    """A VOC data set whose squares stand in the last images only."""
    root = tmp_path_factory.mktemp("late")
    shown = [(0,)] * 24 + [(1,)] * 8
    write_voc(root, [(f"a{i:02}", *image(i, some)) for i, some in enumerate(shown)], "train")
    write_voc(root, [(f"b{i:02}", *image(100 + i)) for i in range(6)], "val")
    return root


def test_classes_of_later_images_are_learned_from_few_rows(late_squares):
    options = replace(OPTIONS, rows=150, flip_below=0, iou_head=0)
    fitted = Detector("builtin", device="cpu", options=options).fit(late_squares, quiet=True)
    metrics = fitted.evaluate(late_squares, quiet=True)
    assert metrics["per_class"]["square"]["AP50"] >= 0.95
    assert metrics["per_class"]["disc"]["AP50"] >= 0.95
    assert fitted.summary_["rows"] <= 150
    assert fitted.summary_["rows_left_out"] > 100
    assert any("--rows" in note for note in fitted.summary_["notes"])


@pytest.fixture
def no_network(monkeypatch):
    """Fail when the network is about to run."""

    def run(*_):
        raise AssertionError("the network ran")

    monkeypatch.setattr("sppnet.detect.sources.extract", run)


@pytest.mark.parametrize("kind", ["none", "crowd", "difficult", "no area"])
def test_a_class_without_objects_is_left_out(kind, shapes_set):
    items = read_detection(shapes_set, "train").items[:4]
    square = torch.tensor([False, True])

    def changed(item):
        truth = item.truth
        if kind == "none":
            return replace(item, truth=truth[~square])
        if kind == "no area":
            xyxy = truth.boxes.xyxy.clone()
            xyxy[1, 2] = xyxy[1, 0]
            return replace(item, truth=replace(truth, boxes=Boxes(xyxy, truth.boxes.size)))
        return replace(item, truth=replace(truth, **{kind: square}))

    data = read_detection(shapes_set, "train")
    data = replace(data, items=tuple(map(changed, items)))
    options = replace(OPTIONS, iou_head=0, mining_rounds=0)
    fitted = Detector("builtin", device="cpu", options=options).fit(data, quiet=True)
    assert fitted.names_ == ("disc",)
    assert fitted.summary_["classes_left_out"] == ["square"]
    assert any("square" in note for note in fitted.summary_["notes"])
    metrics = fitted.evaluate(shapes_set, quiet=True)
    assert set(metrics["per_class"]) == {"disc"}
    assert any("8 objects" in note and "square" in note for note in metrics["notes"])


def test_without_any_object_the_network_does_not_run(no_network, shapes_set):
    data = read_detection(shapes_set, "train")
    items = tuple(replace(item, truth=item.truth[:0]) for item in data.items)
    with pytest.raises(UserError, match="object"):
        Detector("builtin", device="cpu", options=OPTIONS).fit(replace(data, items=items), quiet=True)


def test_images_missing_in_the_proposals_file_are_found_before_the_network_runs(
    no_network, shapes_set, tmp_path
):
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({read_detection(shapes_set, "train").items[0].path.name: [[0, 0, 9, 9]]}))
    with pytest.raises(UserError, match="a01"):
        Detector("builtin", options=replace(OPTIONS, proposals=file)).fit(shapes_set, quiet=True)


def test_an_unknown_class_in_the_test_data_is_named(detector, tmp_path):
    pixels, truth = image(0)
    other = GroundTruth.make(truth.boxes, truth.labels, ("disc", "zebra"))
    write_voc(tmp_path, [("a", pixels, other)], "val")
    with pytest.raises(UserError, match="zebra"):
        detector.evaluate(tmp_path, quiet=True)


OUT_OF_RANGE = ("short_side", "levels", "windows", "C", "nms", "vote", "rows", "ridge", "window_step")


@pytest.mark.parametrize("field", [*OUT_OF_RANGE, "iou_head", "flip_below"])
def test_options_out_of_range_are_named(field, tmp_path):
    bad = replace(DetectorOptions(), **{field: () if field == "levels" else -1})
    with pytest.raises(UserError, match=f"options.{field}"):
        Detector(options=bad).fit(tmp_path)


def test_a_run_of_another_kind_or_half_a_run(detector, tmp_path):
    folder = detector.save(tmp_path / "run")
    model = json.loads((folder / "model.json").read_text())
    model["format"] = 1  # which has no checksums
    (folder / "model.json").write_text(json.dumps({**model, "kind": "classifier"}))
    with pytest.raises(UserError, match="classifier"):
        Detector.load(folder)
    del model["backbone"]
    (folder / "model.json").write_text(json.dumps(model))
    with pytest.raises(UserError, match="backbone"):
        Detector.load(folder)

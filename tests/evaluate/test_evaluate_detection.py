from __future__ import annotations

import json

import pytest
import torch

from sppnet.errors import UserError
from sppnet.evaluate import coco_scores, detection_metrics, voc_curves
from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize

SIZE = ImageSize(300, 300)
NAMES = ("ant", "bee", "cat")


def truth(boxes, labels, names=NAMES):
    return GroundTruth.make(
        Boxes(torch.tensor(boxes).float().reshape(-1, 4), SIZE), torch.tensor(labels), names
    )


def found(boxes, labels, scores, names=NAMES):
    xyxy = torch.tensor(boxes).float().reshape(-1, 4)
    return Detections(Boxes(xyxy, SIZE), torch.tensor(scores), torch.tensor(labels), names)


TRUTHS = [
    truth([[10, 10, 60, 60], [100, 100, 250, 250]], [0, 1]),
    truth([[5, 5, 25, 25], [50, 50, 200, 100]], [0, 0]),
]
FOUND = [
    found([[10, 10, 60, 50], [100, 100, 250, 260], [0, 0, 9, 9]], [0, 1, 2], [0.9, 0.8, 0.7]),
    found([[50, 50, 200, 100], [200, 200, 220, 220]], [0, 0], [0.95, -0.5]),
]


def test_keys_and_json_round_trip():
    metrics = detection_metrics(FOUND, TRUTHS)
    again = json.loads(json.dumps(metrics, allow_nan=False))
    assert again == metrics
    assert set(metrics) == {
        *("AP50", "AP75", "AP", "APs", "APm", "APl", "AR100"),
        *("VOC07_AP50", "VOC_AP50", "images", "objects", "per_class"),
    }
    assert list(metrics["per_class"]) == list(NAMES)
    for row in metrics["per_class"].values():
        assert set(row) == {"AP50", "AP75", "AP", "VOC07_AP50", "VOC_AP50", "objects"}


def test_values_are_those_of_coco_scores_and_voc_curves():
    metrics = detection_metrics(FOUND, TRUTHS)
    coco, curves = coco_scores(FOUND, TRUTHS), voc_curves(FOUND, TRUTHS)
    assert (metrics["AP50"], metrics["AP75"], metrics["AP"]) == (coco.ap50, coco.ap75, coco.ap)
    assert (metrics["APs"], metrics["APm"], metrics["APl"]) == (coco.ap_small, coco.ap_medium, coco.ap_large)
    assert metrics["AR100"] == coco.ar100
    for number, name in enumerate(NAMES):
        row = metrics["per_class"][name]
        assert (row["AP"], row["AP50"], row["AP75"]) == (
            coco.per_class[number].ap,
            coco.per_class[number].ap50,
            coco.per_class[number].ap75,
        )
        assert (row["VOC07_AP50"], row["VOC_AP50"]) == (curves[number].eleven_point, curves[number].area)


def test_values_computed_by_hand():
    """The first two of the ranking detect two of three ants; the bee is detected; a false cat is detected."""
    metrics = detection_metrics(FOUND, TRUTHS)
    assert (metrics["images"], metrics["objects"]) == (2, 4)
    per_class = metrics["per_class"]
    assert [row["objects"] for row in per_class.values()] == [3, 1, 0]
    assert per_class["ant"]["VOC_AP50"] == pytest.approx(2 / 3)
    assert per_class["ant"]["VOC07_AP50"] == pytest.approx(7 / 11)
    assert per_class["ant"]["AP50"] == pytest.approx(67 / 101)
    assert per_class["bee"]["VOC_AP50"] == pytest.approx(1.0)
    assert per_class["cat"] == dict.fromkeys(per_class["cat"], None) | {"objects": 0}
    assert metrics["VOC_AP50"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["VOC07_AP50"] == pytest.approx((7 / 11 + 1) / 2)
    assert metrics["AP50"] == pytest.approx((67 / 101 + 1) / 2)


def test_perfect_detections():
    perfect = [Detections(one.boxes, torch.linspace(1, 0.5, len(one)), one.labels, NAMES) for one in TRUTHS]
    metrics = detection_metrics(perfect, TRUTHS)
    for key in ("AP50", "AP75", "AP", "APs", "APm", "APl", "AR100", "VOC07_AP50", "VOC_AP50"):
        assert metrics[key] == pytest.approx(1.0), key


def test_no_detections_and_no_objects():
    nothing = [Detections.empty(SIZE, NAMES)] * 2
    metrics = detection_metrics(nothing, TRUTHS)
    assert (metrics["AP"], metrics["VOC07_AP50"], metrics["VOC_AP50"]) == (0.0, 0.0, 0.0)
    bare = GroundTruth.make(Boxes.empty(SIZE), torch.zeros(0, dtype=torch.int64), NAMES)
    metrics = detection_metrics(FOUND, [bare, bare])
    assert metrics["objects"] == 0
    assert metrics["AP50"] is None
    assert metrics["VOC_AP50"] is None


def test_metrics_do_not_depend_on_the_order_of_classes():
    reordered = ("cat", "ant", "bee")
    number = torch.tensor([reordered.index(name) for name in NAMES])
    other_truths = [GroundTruth.make(t.boxes, number[t.labels], reordered) for t in TRUTHS]
    other_found = [Detections(f.boxes, f.scores, number[f.labels], reordered) for f in FOUND]
    one, two = detection_metrics(FOUND, TRUTHS), detection_metrics(other_found, other_truths)
    assert one["per_class"] == two["per_class"]
    assert one["AP"] == pytest.approx(two["AP"])


@pytest.mark.parametrize(
    ("detections", "truths", "where"),
    [
        (FOUND[:1], TRUTHS, "detections: expected one entry per image, 2"),
        ([], [], "at least one image"),
        (
            [FOUND[0], found([[0, 0, 9, 9]], [0], [0.5], ("ant", "cat", "bee"))],
            TRUTHS,
            r"detections\[1\]\.names",
        ),
        (FOUND, [TRUTHS[0], truth([[0, 0, 9, 9]], [0], ("ant",))], r"truths\[1\]\.names"),
        ([found([[0, 0, 9, 9]], [0], [float("nan")]), FOUND[1]], TRUTHS, r"detections\[0\]\.scores"),
        (
            [found([[0, 0, 9, 9]], [0], [0.5], ("ant", "ant"))],
            [truth([[0, 0, 9, 9]], [0], ("ant", "ant"))],
            "one or more unique names",
        ),
        (
            [Detections.empty(SIZE, ())],
            [GroundTruth.make(Boxes.empty(SIZE), torch.zeros(0), ())],
            "one or more unique names",
        ),
    ],
)
def test_invalid_arguments_raise_user_errors(detections, truths, where):
    for measure in (detection_metrics, voc_curves, coco_scores):
        with pytest.raises(UserError, match=where):
            measure(detections, truths)
